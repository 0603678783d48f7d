// Command s3 serves a folder by the S3 protocol, signatures checked: Versity's
// gateway over its POSIX backend. A bucket is a folder, an object a file.
//
//	S3_ACCESS_KEY=… S3_SECRET_KEY=… s3 :9000 /data/objects /data/meta
package main

import (
	"context"
	"log"
	"os"
	"os/signal"
	"syscall"

	"github.com/versity/versitygw/backend/meta"
	"github.com/versity/versitygw/backend/posix"
	"github.com/versity/versitygw/embedgw"
)

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: s3 LISTEN FOLDER METADATA")
	}
	address, folder, metadata := os.Args[1], os.Args[2], os.Args[3]
	for _, path := range []string{folder, metadata} {
		if err := os.MkdirAll(path, 0o755); err != nil {
			log.Fatal(err)
		}
	}
	// Not extended attributes: not every file system has them.
	sidecar, err := meta.NewSideCar(metadata)
	if err != nil {
		log.Fatal(err)
	}
	objects, err := posix.New(folder, sidecar, posix.PosixOpts{SideCarDir: metadata})
	if err != nil {
		log.Fatal(err)
	}
	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	err = embedgw.RunVersityGW(stop, objects, &embedgw.Config{
		RootUserAccess: os.Getenv("S3_ACCESS_KEY"), RootUserSecret: os.Getenv("S3_SECRET_KEY"),
		Ports: []string{address}, HealthPath: "/healthz", KeepAlive: true, Quiet: true, AccessLog: "stdout",
		MaxConnections: 1000, MaxRequests: 500, MultipartMaxParts: 10000,
	})
	if err != nil {
		log.Fatal(err)
	}
}
