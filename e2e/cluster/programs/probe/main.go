// Command probe is the one program inside the smoke test's pods: a small web
// server, a client that runs through `kubectl exec`, and a memory hog.
package main

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"
)

const usage = "usage: probe serve ADDRESS | get URL | resolve NAME | eat MIB"

func main() {
	if len(os.Args) != 3 {
		log.Fatal(usage)
	}
	var err error
	switch argument := os.Args[2]; os.Args[1] {
	case "serve":
		err = serve(argument)
	case "get":
		err = get(argument)
	case "resolve":
		err = resolve(argument)
	case "eat":
		err = eat(argument)
	default:
		log.Fatal(usage)
	}
	if err != nil {
		log.Fatal(err)
	}
}

func serve(address string) error {
	name, err := os.Hostname()
	if err != nil {
		return err
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		log.Printf("GET %s", r.URL.Path)
		fmt.Fprintf(w, "hello from %s\n", name)
	})
	log.Printf("serving on %s", address)
	return http.ListenAndServe(address, nil)
}

func get(url string) error {
	client := http.Client{Timeout: 5 * time.Second}
	response, err := client.Get(url)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	_, err = io.Copy(os.Stdout, response.Body)
	return err
}

func resolve(name string) error {
	addresses, err := net.LookupHost(name)
	if err != nil {
		return err
	}
	for _, address := range addresses {
		fmt.Println(address)
	}
	return nil
}

// eat touches every page of so many MiB and then sleeps: a limit below that kills it.
func eat(mib string) error {
	n, err := strconv.Atoi(mib)
	if err != nil {
		return err
	}
	held := make([][]byte, 0, n)
	for range n {
		block := make([]byte, 1<<20)
		for i := 0; i < len(block); i += 4096 {
			block[i] = 1
		}
		held = append(held, block)
	}
	fmt.Printf("holding %d MiB\n", len(held))
	time.Sleep(time.Hour)
	return nil
}
