//go:build tools

// Package stores pins the programs that the tests push checkpoints with.
package stores

import (
	_ "oras.land/oras/cmd/oras"
)
