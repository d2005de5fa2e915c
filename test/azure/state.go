package azuretest

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/resources/armresources"
)

// saved is the state as the file has it.
type saved struct {
	Serial     int             `json:"serial"`
	Registered map[string]bool `json:"registered,omitempty"`
	Resources  []*resource     `json:"resources"`
}

// loadState reads the file, and goes on with what was under way.
func (e *Emulator) loadState() error {
	if e.o.State == "" {
		return nil
	}
	text, err := os.ReadFile(e.o.State)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the state: %w", err)
	}
	var s saved
	if err := json.Unmarshal(text, &s); err != nil {
		return fmt.Errorf("read the state in %s: %w", e.o.State, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.serial = s.Serial
	for n, yes := range s.Registered {
		e.registered[n] = yes
	}
	for _, r := range s.Resources {
		e.record(r.ID, r, time.Now())
	}
	for _, r := range s.Resources {
		switch {
		case r.Kind == kindGroup && r.State == "Deleting":
			op := e.begin(true)
			op.id = r.Failure // whoever waits knows it by that
			e.operations[op.id] = op
			e.jobs.Go(func() { e.endGroup(r, op) })
		case r.Kind == kindVM && r.State == "Creating":
			e.jobs.Go(func() { e.boot(e.ctx, []string{r.ID}) })
		case r.Kind == kindVM && r.State == "Deleting":
			e.jobs.Go(func() {
				if p := e.endMachines(e.ctx, []string{r.ID}); p != nil {
					e.log.Warn("a machine stays", "machine", r.Name, "error", p.Error())
				}
			})
		case r.Kind == kindDeployment:
			d := model[deployment](r)
			if s := d.Properties.ProvisioningState; s != nil && (*s == armresources.ProvisioningStateRunning || *s == armresources.ProvisioningStateAccepted) {
				// Its template is not kept: whoever wants it deploys again.
				*s = armresources.ProvisioningStateCanceled
				if err := e.keep(r, d); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// saveState writes the file, whole or not at all.
func (e *Emulator) saveState() error {
	e.mu.Lock()
	e.dirty = false
	s := saved{Serial: e.serial, Registered: e.registered, Resources: e.list(0, func(*resource) bool { return true })}
	text, err := json.Marshal(s)
	e.mu.Unlock()
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	temp, err := os.CreateTemp(filepath.Dir(e.o.State), ".state-*") // mode 0600
	if err != nil {
		return fmt.Errorf("write the state: %w", err)
	}
	_, err = temp.Write(text)
	if err = errors.Join(err, temp.Close()); err == nil {
		err = os.Rename(temp.Name(), e.o.State)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write the state: %w", err), os.Remove(temp.Name()))
	}
	return nil
}

// keepState writes the file while things change.
func (e *Emulator) keepState() {
	for rest(e.ctx, 200*time.Millisecond) {
		e.mu.Lock()
		dirty := e.dirty
		e.mu.Unlock()
		if !dirty {
			continue
		}
		if err := e.saveState(); err != nil {
			e.log.Error("the state is not kept", "error", err)
		}
	}
}
