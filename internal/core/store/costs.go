package store

import (
	"context"
	"database/sql"
	"fmt"
	"time"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/internal/core/cost"
)

var (
	meterColumns = []string{"partition_id", "account", "site", "flavor", "spot", "nodes", "currency", "price", "unpriced", "began"}
	holdColumns  = []string{"partition_id", "job", "attempt", "owner", "cpus", "began", "ended"}
	costColumns  = []string{
		"partition_id", "job", "attempt", "day", "owner", "account", "site", "flavor", "spot", "nodes", "currency", "unpriced",
		"began", "ended", "amount", "node_time",
	}

	selectMeter = selectFrom("meters", meterColumns)
	selectHold  = selectFrom("holds", holdColumns)
	insertMeter = insertInto("meters", meterColumns) + ` ON CONFLICT (partition_id) DO NOTHING`
	insertCost  = insertInto("costs", costColumns) + ` ON CONFLICT (partition_id, job, attempt, day) DO NOTHING`
)

func scanMeter(row scanner) (m cost.Meter, err error) {
	var spot, unpriced, began int64
	err = row.Scan(&m.Partition, &m.Account, &m.Site, &m.Flavor, &spot, &m.Nodes, &m.Currency, &m.Price, &unpriced, &began)
	m.Spot, m.Unpriced, m.Began = spot != 0, unpriced != 0, moment(began)
	return m, err
}

// heldPartition is a hold with what it is on.
type heldPartition struct {
	partition skyport.PartitionID
	cost.Hold
}

func scanHold(row scanner) (h heldPartition, err error) {
	var began, ended int64
	err = row.Scan(&h.partition, &h.Job, &h.Attempt, &h.Owner, &h.CPUs, &began, &ended)
	h.Began, h.Ended = moment(began), moment(ended)
	return h, err
}

// StartMeter begins to count what a partition costs, from now on. It sets the
// beginning; a meter that runs already goes on as it is. It ends when the
// partition comes to deleted.
func (tx *Tx) StartMeter(m *cost.Meter) error {
	m.Began = tx.Now()
	return tx.exec(insertMeter, m.Partition, m.Account, m.Site, m.Flavor, flag(m.Spot), m.Nodes, m.Currency, m.Price, flag(m.Unpriced), micros(m.Began))
}

// hold notes that an attempt holds its partition from now on.
func (tx *Tx) hold(a *skyport.Attempt) error {
	return tx.exec(`INSERT INTO holds (partition_id, job, attempt, owner, cpus, began, ended)
		SELECT $1, id, $2, owner, $3, $4, 0 FROM jobs WHERE id = $5`, a.Partition, a.Number, a.CPUs, micros(a.Created), a.Job)
}

// letGo notes that an attempt holds its partition no more.
func (tx *Tx) letGo(a *skyport.Attempt) error {
	return tx.exec(`UPDATE holds SET ended = $1 WHERE partition_id = $2 AND job = $3 AND attempt = $4 AND ended = 0`,
		micros(tx.Now()), a.Partition, a.Job, a.Number)
}

// settle ends the meter of a partition and shares what it shows among those who
// held it.
func (tx *Tx) settle(id skyport.PartitionID) error {
	meters, err := meters(tx.ctx, tx, ` WHERE partition_id = $1`, id)
	if err != nil {
		return err
	}
	for i := range meters {
		m := &meters[i]
		for _, s := range m.Shares(tx.Now()) {
			if err := tx.exec(insertCost, id, s.Job, s.Attempt, s.Day, s.Owner, m.Account, m.Site, m.Flavor, flag(m.Spot), m.Nodes, m.Currency,
				flag(m.Unpriced), micros(s.Began), micros(s.Ended), int64(s.Amount), s.NodeTime.Microseconds()); err != nil {
				return err
			}
		}
	}
	if err := tx.exec(`DELETE FROM meters WHERE partition_id = $1`, id); err != nil {
		return err
	}
	return tx.exec(`DELETE FROM holds WHERE partition_id = $1`, id)
}

// meters reads meters with their holds.
func meters(ctx context.Context, q querier, where string, args ...any) ([]cost.Meter, error) {
	list, err := many(ctx, q, scanMeter, selectMeter+where+` ORDER BY partition_id`, args...)
	if err != nil || len(list) == 0 {
		return nil, err
	}
	at := make(map[skyport.PartitionID]int, len(list))
	for i := range list {
		at[list[i].Partition] = i
	}
	holds, err := many(ctx, q, scanHold, selectHold+where+` ORDER BY partition_id, job, attempt`, args...)
	if err != nil {
		return nil, err
	}
	for _, h := range holds {
		if i, ok := at[h.partition]; ok {
			list[i].Holds = append(list[i].Holds, h.Hold)
		}
	}
	return list, nil
}

// Spending is what was spent: what removed partitions have cost, summed up, and
// the meters of all others.
type Spending struct {
	Settled []cost.Sum
	Live    []cost.Meter
}

// Spending returns what the filter selects, as of one moment. The meters are
// all that run: what of them the filter selects is for [cost.Add] to find.
func (s *Store) Spending(ctx context.Context, f cost.Filter) (spent Spending, err error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return spent, fmt.Errorf("store: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	w := where{}
	w.unlessZero("owner = ", f.Owner)
	w.unlessZero("job = ", f.Job)
	w.unlessZero("day >= ", f.Since)
	w.unlessZero("day <= ", f.Until)
	key := costKey(f.By)
	query := `SELECT ` + key + `, currency, CAST(sum(amount) AS BIGINT), CAST(sum(node_time) AS BIGINT), max(unpriced) FROM costs` + w.String() +
		` GROUP BY ` + key + `, currency ORDER BY ` + key + `, currency`
	if spent.Settled, err = many(ctx, txQuerier{tx}, scanSum, query, w.args...); err != nil {
		return spent, err
	}
	spent.Live, err = meters(ctx, txQuerier{tx}, "")
	return spent, err
}

func scanSum(row scanner) (s cost.Sum, err error) {
	var nodeTime, unpriced int64
	err = row.Scan(&s.Key, &s.Currency, &s.Amount, &nodeTime, &unpriced)
	s.NodeTime, s.Unpriced = time.Duration(nodeTime)*time.Microsecond, unpriced != 0
	return s, err
}

// costKey is the column that costs are summed up by.
func costKey(by skyport.CostBy) string {
	switch by {
	case skyport.CostByUser:
		return "owner"
	case skyport.CostBySite:
		return "site"
	case skyport.CostByMonth:
		return "substr(day, 1, 7)"
	case skyport.CostByJob:
		return "job"
	case skyport.CostByAccount:
	}
	return "account"
}

// SiteSum is what an account has cost at a site.
type SiteSum struct {
	Account  string
	Site     string
	Currency string
	Amount   cost.Micros
}

// SpendingBySite returns what removed partitions have cost, and the meters of
// all others.
func (s *Store) SpendingBySite(ctx context.Context) ([]SiteSum, []cost.Meter, error) {
	tx, err := s.read.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
	if err != nil {
		return nil, nil, fmt.Errorf("store: %w", err)
	}
	defer func() { _ = tx.Rollback() }() // nothing was written
	scan := func(row scanner) (s SiteSum, err error) {
		return s, row.Scan(&s.Account, &s.Site, &s.Currency, &s.Amount)
	}
	sums, err := many(ctx, txQuerier{tx}, scan, `SELECT account, site, currency, CAST(sum(amount) AS BIGINT) FROM costs
		GROUP BY account, site, currency`)
	if err != nil {
		return nil, nil, err
	}
	live, err := meters(ctx, txQuerier{tx}, "")
	return sums, live, err
}
