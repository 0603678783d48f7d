// Command relay copies TCP connections from one address to another, so that a
// port of the cluster's network namespace appears on the host's loopback.
//
//	relay 127.0.0.1:6443 169.254.77.2:6443
package main

import (
	"io"
	"log"
	"net"
	"os"
	"time"
)

func main() {
	if len(os.Args) != 3 {
		log.Fatal("usage: relay LISTEN TARGET")
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatalf("failed to listen: %v", err)
	}
	for {
		client, err := listener.Accept()
		if err != nil {
			// Out of file descriptors: wait for connections to end.
			log.Printf("failed to accept: %v", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go relay(client.(*net.TCPConn), os.Args[2])
	}
}

func relay(client *net.TCPConn, target string) {
	defer client.Close()
	conn, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		// A reset, not an orderly end: the caller sees that nobody answered.
		_ = client.SetLinger(0)
		log.Printf("failed to connect: %v", err)
		return
	}
	server := conn.(*net.TCPConn)
	defer server.Close()
	done := make(chan struct{}, 2)
	go func() { oneWay(server, client); done <- struct{}{} }()
	go func() { oneWay(client, server); done <- struct{}{} }()
	<-done
	<-done
}

// oneWay passes bytes on, then the end of the stream. After an error both ends
// close, so that the other direction does not wait for ever.
func oneWay(dst, src *net.TCPConn) {
	if _, err := io.Copy(dst, src); err != nil {
		_ = src.Close()
		_ = dst.Close()
		return
	}
	_ = dst.CloseWrite()
}
