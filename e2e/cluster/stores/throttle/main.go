// Command throttle copies TCP connections from one address to another, and
// lets no more bytes a second come back than a file says: a store can be slow,
// or stand still, while a test looks.
//
//	throttle :5001 127.0.0.1:5000 /control/rate
//
// The file holds a number of bytes a second for all connections together; 0
// holds everything back, and without the file nothing is.
package main

import (
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

const tick = 20 * time.Millisecond

func main() {
	if len(os.Args) != 4 {
		log.Fatal("usage: throttle LISTEN TARGET RATE-FILE")
	}
	listener, err := net.Listen("tcp", os.Args[1])
	if err != nil {
		log.Fatalf("failed to listen: %v", err)
	}
	budget := newBudget(os.Args[3])
	for {
		client, err := listener.Accept()
		if err != nil {
			log.Printf("failed to accept: %v", err)
			time.Sleep(100 * time.Millisecond)
			continue
		}
		go serve(client, os.Args[2], budget)
	}
}

func serve(client net.Conn, target string, budget *budget) {
	defer client.Close()
	server, err := net.DialTimeout("tcp", target, 5*time.Second)
	if err != nil {
		log.Printf("failed to connect: %v", err)
		return
	}
	defer server.Close()
	go func() {
		_, _ = io.Copy(server, client)
		_ = server.(*net.TCPConn).CloseWrite()
	}()
	buffer := make([]byte, 256<<10)
	for {
		n, err := server.Read(buffer[:budget.grain()])
		for sent := 0; sent < n; {
			part := budget.take(n - sent)
			if _, err := client.Write(buffer[sent : sent+part]); err != nil {
				return
			}
			sent += part
		}
		if err != nil {
			return
		}
	}
}

// budget is what may still be sent in this tick, by all connections.
type budget struct {
	sync.Mutex
	refilled *sync.Cond
	limited  bool
	rate     int
	left     int
}

func newBudget(path string) *budget {
	b := &budget{}
	b.refilled = sync.NewCond(b)
	b.refill(path)
	go func() {
		for range time.Tick(tick) {
			b.refill(path)
		}
	}()
	return b
}

func (b *budget) refill(path string) {
	text, err := os.ReadFile(path)
	rate, notNumber := strconv.Atoi(strings.TrimSpace(string(text)))
	b.Lock()
	defer b.Unlock()
	b.limited = err == nil && notNumber == nil
	b.rate, b.left = rate, int(float64(rate)*tick.Seconds())
	b.refilled.Broadcast()
}

// grain bounds a read, so that what lies in the buffer is soon sent.
func (b *budget) grain() int {
	b.Lock()
	defer b.Unlock()
	if b.limited {
		return 16 << 10
	}
	return 256 << 10
}

func (b *budget) take(wanted int) int {
	b.Lock()
	defer b.Unlock()
	for b.limited && b.left == 0 {
		b.refilled.Wait()
	}
	if !b.limited {
		return wanted
	}
	granted := min(wanted, b.left)
	b.left -= granted
	return granted
}
