// Package cost computes what partitions cost and who pays which part of it. It
// is pure: no clock, no I/O.
//
// A [Meter] runs from the moment at which the site is asked for a partition
// until the site confirms that it is gone. At each moment its price is shared by
// the attempts that hold the partition, by their cpus; time in which none holds
// it goes to those that held it last, and before the first to those that it
// waits for. Amounts are whole millionths of a currency's unit, so that the
// shares of a meter add up to its amount exactly, however it is cut: by attempt,
// by day, or by when one looks.
package cost
