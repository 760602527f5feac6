// A peer of TLS 1.3 by Go's crypto/tls, of Go 1.24 or later:
//
//	peer dial ADDRESS GROUPS
//	peer serve CERTIFICATE KEY AUTHORITIES GROUPS
//
// GROUPS are names with commas between, or `default`. For each connection it prints what was on the wire: the group of the server's share, and whether
// the client was asked to try again. `serve` takes clients with a certificate of the authorities only, and says where it listens.
package main

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"time"
)

var groups = map[string]tls.CurveID{
	"X25519MLKEM768": tls.X25519MLKEM768,
	"x25519":         tls.X25519,
	"secp256r1":      tls.CurveP256,
}

func main() {
	switch args := os.Args[1:]; {
	case len(args) == 3 && args[0] == "dial":
		dial(args[1], preferences(args[2]))
	case len(args) == 5 && args[0] == "serve":
		serve(args[1], args[2], args[3], preferences(args[4]))
	default:
		panic("usage: peer dial ADDRESS GROUPS, or peer serve CERTIFICATE KEY AUTHORITIES GROUPS")
	}
}

func preferences(names string) []tls.CurveID {
	if names == "default" {
		return nil
	}
	var chosen []tls.CurveID
	for _, name := range strings.Split(names, ",") {
		group, known := groups[name]
		if !known {
			panic("no group " + name)
		}
		chosen = append(chosen, group)
	}
	return chosen
}

func dial(address string, chosen []tls.CurveID) {
	stream, err := net.DialTimeout("tcp", address, 10*time.Second)
	check(err)
	wire := &wiretap{Conn: stream}
	// Whose certificate it is others look at.
	connection := tls.Client(wire, &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS13, CurvePreferences: chosen})
	check(connection.Handshake())
	report(wire.read.Bytes())
}

func serve(certificate, key, authorities string, chosen []tls.CurveID) {
	own, err := tls.LoadX509KeyPair(certificate, key)
	check(err)
	pem, err := os.ReadFile(authorities)
	check(err)
	clients := x509.NewCertPool()
	if !clients.AppendCertsFromPEM(pem) {
		panic("no certificate in " + authorities)
	}
	config := &tls.Config{
		Certificates:     []tls.Certificate{own},
		ClientAuth:       tls.RequireAndVerifyClientCert,
		ClientCAs:        clients,
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: chosen,
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	fmt.Printf("listening on %s\n", listener.Addr())
	for {
		stream, err := listener.Accept()
		check(err)
		wire := &wiretap{Conn: stream}
		connection := tls.Server(wire, config)
		if err := connection.Handshake(); err != nil {
			fmt.Printf("failed: %v\n", err)
		} else {
			report(wire.written.Bytes())
		}
		connection.Close()
	}
}

// Keeps what goes over a connection.
type wiretap struct {
	net.Conn
	read, written bytes.Buffer
}

func (w *wiretap) Read(into []byte) (int, error) {
	n, err := w.Conn.Read(into)
	w.read.Write(into[:n])
	return n, err
}

func (w *wiretap) Write(bytes []byte) (int, error) {
	w.written.Write(bytes)
	return w.Conn.Write(bytes)
}

// The first messages of a server: one ServerHello, or two where the first asks for another try (RFC 8446, 4.1.4).
func report(records []byte) {
	again := sha256.Sum256([]byte("HelloRetryRequest"))
	retried := false
	for len(records) >= 5 {
		kind, length := records[0], int(binary.BigEndian.Uint16(records[3:]))
		record := records[5 : 5+length]
		records = records[5+length:]
		// Others than handshakes, such as the change of cipher of middleboxes.
		if kind != 22 {
			continue
		}
		if record[0] != 2 {
			panic("the first message of a server is no ServerHello")
		}
		if bytes.Equal(record[6:38], again[:]) {
			retried = true
			continue
		}
		fmt.Printf("group %s, retried %v\n", shared(record), retried)
		return
	}
	panic("no ServerHello")
}

// The group of a ServerHello's share.
func shared(hello []byte) string {
	at := 38 + 1 + int(hello[38]) + 2 + 1
	extensions := hello[at+2 : at+2+int(binary.BigEndian.Uint16(hello[at:]))]
	for len(extensions) >= 4 {
		kind, length := binary.BigEndian.Uint16(extensions), int(binary.BigEndian.Uint16(extensions[2:]))
		if kind == 51 {
			group := tls.CurveID(binary.BigEndian.Uint16(extensions[4:]))
			for name, known := range groups {
				if known == group {
					return name
				}
			}
			return fmt.Sprintf("0x%04x", uint16(group))
		}
		extensions = extensions[4+length:]
	}
	return "none"
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
