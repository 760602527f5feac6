//go:build go1.26

// Writes vectors of ML-KEM-768 by Go's crypto/mlkem (Go 1.26 or later), as the tests of certs/src/tls/hybrid read them:
//
//	cd tests/interop/go && go run ./vectors >../../../certs/src/tls/hybrid/mlkem768.txt
//
// A line is a seed (d, z), SHA-256 of the encapsulation key, a message, a ciphertext, and the secret; without a message the ciphertext is
// random, and the secret that of an implicit rejection (FIPS 203, 6.3).
package main

import (
	"crypto/mlkem"
	"crypto/mlkem/mlkemtest"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"runtime"
)

func main() {
	fmt.Printf("# crypto/mlkem of %s: seed, SHA-256 of the encapsulation key, message or -, ciphertext, secret\n", runtime.Version())
	for i := range 24 {
		seed := random(mlkem.SeedSize)
		key, err := mlkem.NewDecapsulationKey768(seed)
		check(err)
		share := key.EncapsulationKey()
		message, secret, ciphertext := "-", []byte(nil), random(mlkem.CiphertextSize768)
		if i%2 == 0 {
			chosen := random(32)
			message = fmt.Sprintf("%x", chosen)
			secret, ciphertext, err = mlkemtest.Encapsulate768(share, chosen)
			check(err)
		}
		again, err := key.Decapsulate(ciphertext)
		check(err)
		if secret != nil && string(secret) != string(again) {
			panic("Go does not agree with itself")
		}
		fmt.Printf("%x %x %s %x %x\n", seed, sha256.Sum256(share.Bytes()), message, ciphertext, again)
	}
}

func random(size int) []byte {
	bytes := make([]byte, size)
	rand.Read(bytes)
	return bytes
}

func check(err error) {
	if err != nil {
		panic(err)
	}
}
