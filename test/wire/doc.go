// Package wire emulates a network link for tests, where the kernel has no netem:
// two TUN devices in two network namespaces, and packets carried between them
// in user space with delay, jitter, a rate, a queue, loss, reordering, cuts, or
// a NAT that forgets idle connections. The TCP on both sides is the kernel's.
//
//	link := wire.New(t, wire.Settings{RTT: 50 * time.Millisecond, Rate: wire.Gbit})
//	listener, err := link.B.Listen(ctx, "tcp", ":0")
//	conn, err := link.A.Dial(ctx, "tcp", net.JoinHostPort(link.B.Addr.String(), port))
//	link.Cut()
//
// With [Settings.Join], side B is the machine's own namespace: what runs in A
// reaches the machine's networks, containers too, over the link and in no other
// way. Settings can be changed while packets flow.
//
// Packets of TCP travel as the kernel makes them before it cuts them to the MTU
// (up to 64 KiB) when nothing happens to packets one by one, see [Link.Set]: that
// is how a link of 1 Gbit/s costs a tenth of a core. A link needs root, /dev/net/tun
// and iproute2. Namespaces that a killed process left are removed by the next.
package wire
