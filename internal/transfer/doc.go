// Package transfer moves trees of files between two ends over HTTP: from a
// terminal to core, from core to a worker, and back.
//
// A tree is described by a [Manifest]: files cut into chunks by their content,
// each named by its BLAKE3 hash. [Scan] makes one of files on disk. A [Source]
// can be sent: a [Tree] on disk, or a tree in a [Depot]. A [Place] can receive:
// a [Depot], which keeps trees by content, or a [Receiver], which assembles
// them in a directory. [Push] and [Pull] are the calling ends;
// [NewReceiveHandler] and [NewSendHandler] the answering ones.
//
// The receiver decides what it lacks, verifies every chunk, and makes a tree
// appear only when all of it is there. Chunks come in any order, on several
// streams. A cut, or a kill -9 of either end, costs what was on its way.
// Nothing is synced to the disk before a commit; after a reboot what arrived is
// checked before it is believed. A peer is not trusted: manifests are validated
// ([Manifest.Validate]), streams bounded, and links can not lead out of a tree.
//
// Memory is bounded by the number of streams (about 4 MiB each) and of files
// and chunks (about 150 bytes each), not by the size of files. All exported
// types may be used from many goroutines; no goroutine outlives the call that
// started it.
//
//	tree, err := transfer.ScanInputs(ctx, []string{"book.txt", "data"})
//	moved, err := transfer.Push(ctx, client, "http://core/v1/staging", tree, transfer.Options{})
package transfer
