// Command registry is the CNCF distribution registry with the two storage
// drivers that a test needs (upstream's own main brings four clouds along),
// and `registry htpasswd USER`, which hashes the password on its input.
package main

import (
	"bufio"
	"fmt"
	"os"

	"github.com/distribution/distribution/v3/registry"
	_ "github.com/distribution/distribution/v3/registry/auth/htpasswd"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/filesystem"
	_ "github.com/distribution/distribution/v3/registry/storage/driver/inmemory"
	"github.com/spf13/cobra"
	"golang.org/x/crypto/bcrypt"
)

func main() {
	registry.RootCmd.AddCommand(&cobra.Command{
		Use:   "htpasswd USER",
		Short: "print a line of a password file; the password comes on standard input",
		Args:  cobra.ExactArgs(1),
		RunE:  func(_ *cobra.Command, arguments []string) error { return htpasswd(arguments[0]) },
	})
	if registry.RootCmd.Execute() != nil {
		os.Exit(1)
	}
}

// htpasswd hashes at bcrypt's least cost: the registry does it again for every
// request, and a pull of many ranges shall measure the pull.
func htpasswd(user string) error {
	input := bufio.NewScanner(os.Stdin)
	input.Scan()
	if err := input.Err(); err != nil {
		return err
	}
	hash, err := bcrypt.GenerateFromPassword(input.Bytes(), bcrypt.MinCost)
	if err != nil {
		return err
	}
	fmt.Printf("%s:%s\n", user, hash)
	return nil
}
