package node_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"

	adminv1 "github.com/kilndb/kiln/api/kiln/admin/v1"
	"github.com/kilndb/kiln/api/kiln/admin/v1/adminv1connect"
	"github.com/kilndb/kiln/internal/memnet"
	"github.com/kilndb/kiln/metastore/client"
	"github.com/kilndb/kiln/node"
	"github.com/kilndb/kiln/node/nodetest"
	"github.com/kilndb/kiln/objstore/memory"
	"github.com/kilndb/kiln/profile/corpus"
	"github.com/kilndb/kiln/profile/oracle"
	"github.com/kilndb/kiln/segmentwriter/segmentwritertest"
	"github.com/kilndb/kiln/tenant"
)

// authority issues certificates.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, dir: t.TempDir()}
	a.cert, a.key = a.issue("authority", &x509.Certificate{IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	return a
}

// issue makes the files name.crt and name.key.
func (a *authority) issue(name string, template *x509.Certificate) (*x509.Certificate, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template.SerialNumber, template.Subject = big.NewInt(time.Now().UnixNano()), pkix.Name{CommonName: name}
	template.NotBefore, template.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(24*time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		a.t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".crt", "CERTIFICATE", der)
	a.write(name+".key", "EC PRIVATE KEY", keyDER)
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		a.t.Fatal(err)
	}
	return cert, key
}

func (a *authority) write(file, kind string, der []byte) {
	a.t.Helper()
	if err := os.WriteFile(filepath.Join(a.dir, file), pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
}

// member returns the files of a member whose host is name, which this authority has issued and that trusts another.
func (a *authority) member(name string, trusts *authority) node.TLSFiles {
	a.issue(name, &x509.Certificate{DNSNames: []string{name}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	return node.TLSFiles{
		Cert: filepath.Join(a.dir, name+".crt"), Key: filepath.Join(a.dir, name+".key"), CA: filepath.Join(trusts.dir, "authority.crt"),
	}
}

// members are the configurations of n processes with every role whose metastores are a group over TLS.
func members(t *testing.T, a *authority, n int) (cfgs []node.Config) {
	var peers []string
	for i := range n {
		peers = append(peers, fmt.Sprintf("kiln-%d:4041", i))
	}
	for i := range n {
		cfg := node.DefaultConfig()
		cfg.DataDir, cfg.HTTP, cfg.SelfProfile, cfg.Bucket = t.TempDir(), fmt.Sprintf("kiln-%d:4040", i), false, "s3://shared"
		cfg.Raft = node.Raft{Address: peers[i], Peers: peers, TLS: a.member(fmt.Sprintf("kiln-%d", i), a)}
		cfgs = append(cfgs, cfg)
	}
	return cfgs
}

// TestWholeProcessesAreACluster pushes to each of three and asks each, while they compact; then the leader stops.
func TestWholeProcessesAreACluster(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		cluster := nodetest.New(t)
		cluster.Bucket = memory.New()
		nodes := cluster.StartAll(members(t, newAuthority(t), 3)...)
		base, start := oracle.Parse(corpus.Get("regexp-mutex-1").Gzipped), time.Now().Add(-time.Minute).Truncate(time.Millisecond)
		var total int64
		pushOne := func(n *nodetest.Node, i int) {
			t.Helper()
			p, body := scaled(base, int64(i+1), start.Add(time.Duration(i)*time.Millisecond))
			if err := push(n, "", series("mutex", "web", body)); err != nil {
				t.Fatal(err)
			}
			total += oracle.Sum("delay", p).Total
		}
		askAll := func(nodes []*nodetest.Node) {
			t.Helper()
			for i, n := range nodes { // at once: what was acknowledged is seen, wherever it was pushed
				got := seriesSum(t, n, scope{selector: `{}`, start: start.UnixMilli(), end: start.UnixMilli() + 1000}, "mutex:delay:nanoseconds:contentions:count")
				if got[""] != total {
					t.Fatalf("node %d answers %v, want %d", i, got, total)
				}
			}
		}
		for i := range 60 {
			pushOne(nodes[i%3], i)
			askAll(nodes)
			time.Sleep(time.Second)
		}
		answer, err := clusterAt(nodes[1]).GetCluster(t.Context(), connect.NewRequest(&adminv1.GetClusterRequest{}))
		if err != nil {
			t.Fatal(err)
		}
		if len(answer.Msg.GetMembers()) != 3 || len(answer.Msg.GetNodes()) != 3 {
			t.Errorf("the cluster is %v", answer.Msg)
		}
		lead, _ := leaderOf(t, answer.Msg)
		nodes[lead].Stop()
		rest := []*nodetest.Node{nodes[(lead+1)%3], nodes[(lead+2)%3]}
		for i := 60; i < 70; i++ {
			pushOne(rest[i%2], i)
			askAll(rest)
		}
	})
}

func clusterAt(n *nodetest.Node) adminv1connect.ClusterServiceClient {
	return adminv1connect.NewClusterServiceClient(n.HTTP(), n.URL())
}

// leaderOf returns which of the nodes leads, and its id in the group.
func leaderOf(t *testing.T, c *adminv1.GetClusterResponse) (lead int, id string) {
	t.Helper()
	for _, m := range c.GetMembers() {
		if m.GetLeads() {
			if _, err := fmt.Sscanf(m.GetServiceAddress(), "kiln-%d:4040", &lead); err != nil {
				t.Fatal(err)
			}
			return lead, m.GetId()
		}
	}
	t.Fatalf("nobody leads: %v", c)
	return 0, ""
}

// TestCallsArePassedOnOnce removes a leader. Whoever still takes it for the leader is sent elsewhere by it, and what was passed on to a
// node that does not lead is not passed on from there: two nodes would send it back and forth.
func TestCallsArePassedOnOnce(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		cluster := nodetest.New(t)
		cluster.Bucket = memory.New()
		nodes := cluster.StartAll(members(t, newAuthority(t), 3)...)
		ask := func(n *nodetest.Node, passedOn bool) (*adminv1.GetClusterResponse, error) {
			req := connect.NewRequest(&adminv1.GetClusterRequest{})
			if passedOn {
				req.Header().Set(client.PassedOn, "true")
			}
			answer, err := clusterAt(n).GetCluster(t.Context(), req)
			if err != nil {
				return nil, err
			}
			return answer.Msg, nil
		}
		must := func(n *nodetest.Node) *adminv1.GetClusterResponse {
			t.Helper()
			c, err := ask(n, false)
			if err != nil {
				t.Fatal(err)
			}
			return c
		}
		first, id := leaderOf(t, must(nodes[0]))
		for i, n := range nodes {
			if _, err := ask(n, true); i == first && err != nil || i != first && connect.CodeOf(err) != connect.CodeFailedPrecondition {
				t.Errorf("what was passed on to node %d, where node %d leads: %v", i, first, err)
			}
		}
		if _, err := clusterAt(nodes[first]).TransferLeadership(t.Context(), connect.NewRequest(&adminv1.TransferLeadershipRequest{})); err != nil {
			t.Fatal(err)
		}
		second, _ := leaderOf(t, must(nodes[(first+1)%3]))
		remove := func() error {
			_, err := clusterAt(nodes[second]).RemoveMember(t.Context(), connect.NewRequest(&adminv1.RemoveMemberRequest{Id: id}))
			return err
		}
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(10 * time.Second) // the removed one has noticed
		if _, err := ask(nodes[first], true); connect.CodeOf(err) != connect.CodeUnavailable {
			t.Errorf("what was passed on to a node that was removed: %v, want that others are asked", err)
		}
		if err := remove(); connect.CodeOf(err) != connect.CodeNotFound {
			t.Errorf("removed again: %v", err)
		}
		for i, n := range nodes { // the removed one asks the others
			if c := must(n); len(c.GetMembers()) != 2 {
				t.Errorf("node %d shows %v", i, c.GetMembers())
			}
		}
	})
}

// TestATenantDeletesAtAnyMember asks each of three, of which one leads. That a call was passed on, as anybody may say, opens nothing to
// another tenant.
func TestATenantDeletesAtAnyMember(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		cluster := nodetest.New(t)
		cluster.Bucket = memory.New()
		cfgs := members(t, newAuthority(t), 3)
		for i := range cfgs {
			cfgs[i].MultiTenant = true
		}
		nodes := cluster.StartAll(cfgs...)
		for i, n := range nodes {
			for _, service := range []string{"shop", "till"} {
				if _, err := n.Deletions("red").Delete(t.Context(), connect.NewRequest(&adminv1.DeleteRequest{Service: &service})); err != nil {
					t.Errorf("asked of node %d: %v", i, err)
				}
			}
			all, err := n.Deletions("red").ListDeletions(t.Context(), connect.NewRequest(&adminv1.ListDeletionsRequest{}))
			if err != nil || len(all.Msg.GetDeletions()) != 2*(i+1) {
				t.Errorf("node %d shows %v, %v", i, all, err)
			}
			for id, want := range map[tenant.ID]connect.Code{"": connect.CodeUnauthenticated, "blue": connect.CodePermissionDenied} {
				req := connect.NewRequest(&adminv1.DeleteRequest{Tenant: "red"})
				req.Header().Set(client.PassedOn, "true")
				if _, err := n.Deletions(id).Delete(t.Context(), req); connect.CodeOf(err) != want {
					t.Errorf("tenant %q deletes of another at node %d: %v", id, i, err)
				}
			}
		}
	})
}

// TestOnlyMembersOfTheAuthorityAreLetIn connects to the port for members in plain, without a certificate, and with one of somebody else.
func TestOnlyMembersOfTheAuthorityAreLetIn(t *testing.T) {
	segmentwritertest.Bubble(t, func(t *testing.T) {
		a := newAuthority(t)
		cfg := members(t, a, 1)[0]
		network := memnet.New()
		env := node.Env{Log: slog.New(slog.DiscardHandler), Network: network}
		cfg.Bucket = "mem://"
		n, err := node.Open(t.Context(), cfg, env)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- n.Run(ctx) }()
		defer func() {
			stop()
			if err := <-done; err != nil {
				t.Error(err)
			}
		}()
		let := func(config *tls.Config) error {
			c, err := network.DialContext(t.Context(), "", cfg.Raft.Address)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if config != nil {
				secure := tls.Client(c, config)
				if err := secure.Handshake(); err != nil {
					return err
				}
				c = secure
			}
			if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00"); err != nil {
				return err
			}
			_, err = c.Read(make([]byte, 1))
			return err
		}
		trusted := x509.NewCertPool()
		trusted.AddCert(a.cert)
		files := a.member("kiln-9", a)
		own, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		stranger := newAuthority(t)
		files = stranger.member("kiln-9", a)
		foreign, err := tls.LoadX509KeyPair(files.Cert, files.Key)
		if err != nil {
			t.Fatal(err)
		}
		if err := let(&tls.Config{RootCAs: trusted, ServerName: "kiln-0", Certificates: []tls.Certificate{own}}); err != nil {
			t.Errorf("a member is not let in: %v", err)
		}
		for name, config := range map[string]*tls.Config{
			"plain":               nil,
			"without certificate": {RootCAs: trusted, ServerName: "kiln-0"},
			"a stranger's":        {RootCAs: trusted, ServerName: "kiln-0", Certificates: []tls.Certificate{foreign}},
			"TLS 1.2":             {RootCAs: trusted, ServerName: "kiln-0", Certificates: []tls.Certificate{own}, MaxVersion: tls.VersionTLS12},
		} {
			if err := let(config); err == nil {
				t.Errorf("%s: let in", name)
			}
		}
	})
}

func TestFlagsOfAGroup(t *testing.T) {
	for want, change := range map[string]func(*node.Config){
		"--metastore.raft: a member of a group needs an address": func(c *node.Config) { c.Raft = node.Raft{Peers: []string{"a:1"}} },
		"--metastore.raft: \"here\" is not host:port":            func(c *node.Config) { c.Raft.Address, c.Raft.Advertise = "here", "here:1" },
		"--metastore.raft-advertise: \":4041\"":                  func(c *node.Config) { c.Raft.Address = ":4041" },
		"--metastore.raft-advertise: \"0.0.0.0:4041\"":           func(c *node.Config) { c.Raft.Address = "0.0.0.0:4041" },
		"--metastore.peers: \":1\"":                              func(c *node.Config) { c.Raft.Peers = []string{":1"} },
		"--metastore.learner: it needs":                          func(c *node.Config) { c.Raft.Learner = true },
		"--metastore.raft-tls-cert, -key, -ca: certificate":      func(c *node.Config) { c.Raft.TLS.Cert = "x" },
		"--metastore.raft-tls-cert, -key, -ca: open nowhere":     func(c *node.Config) { c.Raft.TLS = node.TLSFiles{Cert: "nowhere", Key: "nowhere", CA: "nowhere"} },
		"--metastore.raft: this process does not play":           func(c *node.Config) { c.Roles, c.Metastore = []node.Role{node.Distributor}, []string{"a:1"} },
		"--bucket: a process that is not alone":                  func(c *node.Config) { c.Bucket = "" },
	} {
		cfg := node.DefaultConfig()
		cfg.Bucket, cfg.Raft.Address = "mem://", "kiln-0:4041"
		change(&cfg)
		if err := cfg.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}
