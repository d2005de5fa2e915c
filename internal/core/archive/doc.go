// Package archive keeps what jobs leave at core: the logs as they come, and the
// outputs. Below one directory lies jobs/<job>/<attempt>/ with stdout.log,
// stderr.log, outputs/ and outputs.manifest.
//
// A log has one writer, the loop of its attempt, and any number of readers that
// can follow it: [Archive.OpenLog] tells the size so far, whether more may come,
// and when that changes. The size of the file is the offset to go on from, so
// after a crash the writer continues without a gap or a repetition.
//
// Logs are synced by [Archive.SyncLogs] before the worker is told to forget its
// own; until then a loss of power costs nothing that the node does not have.
package archive
