package azuretest_test

import (
	"bytes"
	"compress/gzip"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/Azure/azure-sdk-for-go/sdk/azcore/to"
	"github.com/Azure/azure-sdk-for-go/sdk/resourcemanager/compute/armcompute/v7"
	"golang.org/x/crypto/ssh"

	"github.com/openworkload/skyport"
	"github.com/openworkload/skyport/images/node"
	azuretest "github.com/openworkload/skyport/test/azure"
)

// Machines of a deployment are containers that boot their custom data, packed by
// gzip, and have SSH servers at the addresses that Azure tells; deallocated and
// removed ones are gone.
func TestDocker(t *testing.T) {
	image := node.Ensure(t)
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := ssh.NewPublicKey(public)
	if err != nil {
		t.Fatal(err)
	}
	line := strings.TrimSpace(string(ssh.MarshalAuthorizedKey(key)))
	var packed bytes.Buffer
	w := gzip.NewWriter(&packed)
	if _, err := fmt.Fprintf(w, "#cloud-config\nusers:\n- name: skyport\n  shell: /bin/sh\n  ssh_authorized_keys: [%q]\n", line); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data := base64.StdEncoding.EncodeToString(packed.Bytes())

	machines, err := azuretest.NewDocker(azuretest.DockerOptions{
		Image: image, NoEngine: true, MaxMemory: 512 << 20, Labels: map[string]string{"io.openworkload.skyport.test": "azure"},
	})
	if err != nil {
		t.Fatal(err)
	}
	s := start(t, azuretest.Options{Machines: machines})
	ctx := t.Context()
	prefix := skyport.PartitionName(skyport.NewPartitionID())
	if err := s.group(ctx, prefix); err != nil {
		t.Fatal(err)
	}
	d, err := s.deploy(ctx, prefix, clusterTemplate(t), cluster(prefix, 2, map[string]any{"userData": map[string]any{"nodes": []any{data, data}}, "key": line}))
	if err != nil {
		t.Fatal(err)
	}
	outputs := d.Properties.Outputs.(map[string]any)
	address := outputs["address"].(map[string]any)["value"].(string)
	private0 := outputs["private"].(map[string]any)["value"].([]any)
	if address != private0[0] || private0[0] == private0[1] {
		t.Errorf("addresses %s and %v", address, private0)
	}
	run := func(command string) (string, error) {
		conn, err := ssh.Dial("tcp", net.JoinHostPort(address, "22"), &ssh.ClientConfig{
			User: "skyport", Auth: []ssh.AuthMethod{ssh.PublicKeys(signer)}, HostKeyCallback: ssh.InsecureIgnoreHostKey(), Timeout: 5 * time.Second,
		})
		if err != nil {
			return "", err
		}
		defer conn.Close()
		session, err := conn.NewSession()
		if err != nil {
			return "", err
		}
		out, err := session.CombinedOutput(command)
		return strings.TrimSpace(string(out)), err
	}
	var out string
	for end := time.Now().Add(2 * time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if out, err = run("hostname"); err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("no login: %v", err)
		}
	}
	if out != prefix+"-0" {
		t.Errorf("the host is %q", out)
	}
	stop, err := s.vms.BeginDeallocate(ctx, prefix, prefix+"-0", &armcompute.VirtualMachinesClientBeginDeallocateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stop.PollUntilDone(ctx, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := run("hostname"); err == nil {
		t.Error("a deallocated machine answers")
	}
	vm, err := s.vms.Get(ctx, prefix, prefix+"-0", &armcompute.VirtualMachinesClientGetOptions{Expand: to.Ptr(armcompute.InstanceViewTypesInstanceView)})
	if err != nil {
		t.Fatal(err)
	}
	if got := *vm.Properties.InstanceView.Statuses[1].Code; got != "PowerState/deallocated" {
		t.Errorf("it is %s", got)
	}
	if err := s.drop(ctx, prefix); err != nil {
		t.Fatal(err)
	}
	for _, list := range [][]string{{"ps", "-aq"}, {"network", "ls", "-q"}, {"volume", "ls", "-q"}} {
		left, err := exec.CommandContext(ctx, "docker", append(list, "--filter", "label=io.openworkload.skyport.test=azure")...).Output()
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(left)) > 0 {
			t.Errorf("docker %v: %s", list, left)
		}
	}
}
