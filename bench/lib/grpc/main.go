// A gRPC-shaped server and load for measurements, on the standard library alone: unary calls over HTTP/2 with prior
// knowledge, five bytes of prefix before each message, the status in the trailers.
//
//	grpc serve ADDRESS
//	grpc load ADDRESS AUTHORITY CONNECTIONS CALLS-AT-ONCE SECONDS
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

var message = append([]byte{0, 0, 0, 0, 11}, []byte("hello world")...)

func h2c() *http.Protocols {
	protocols := new(http.Protocols)
	protocols.SetUnencryptedHTTP2(true)
	return protocols
}

func serve(address string) error {
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.Write(body)
		w.Header().Set("Grpc-Status", "0")
	})
	return (&http.Server{Addr: address, Handler: handler, Protocols: h2c()}).ListenAndServe()
}

func load(address, authority string, connections, atOnce int, seconds float64) {
	var calls, errors atomic.Int64
	var wait sync.WaitGroup
	until := time.Now().Add(time.Duration(seconds * float64(time.Second)))
	for range connections {
		client := &http.Client{Transport: &http.Transport{Protocols: h2c()}}
		for range atOnce / connections {
			wait.Add(1)
			go func() {
				defer wait.Done()
				for time.Now().Before(until) {
					if call(client, address, authority) == nil {
						calls.Add(1)
					} else {
						errors.Add(1)
					}
				}
			}()
		}
	}
	wait.Wait()
	fmt.Printf("%.1f %d\n", float64(calls.Load())/seconds, errors.Load())
}

func call(client *http.Client, address, authority string) error {
	request, err := http.NewRequest("POST", "http://"+address+"/test.Echo/Echo", bytes.NewReader(message))
	if err != nil {
		return err
	}
	request.Host = authority
	request.Header.Set("Content-Type", "application/grpc")
	request.Header.Set("TE", "trailers")
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != 200 || !bytes.Equal(body, message) || answer.Trailer.Get("Grpc-Status") != "0" {
		return fmt.Errorf("status %d, grpc-status %q", answer.StatusCode, answer.Trailer.Get("Grpc-Status"))
	}
	return nil
}

func main() {
	switch os.Args[1] {
	case "serve":
		fmt.Fprintln(os.Stderr, serve(os.Args[2]))
		os.Exit(1)
	case "load":
		connections, _ := strconv.Atoi(os.Args[4])
		atOnce, _ := strconv.Atoi(os.Args[5])
		seconds, _ := strconv.ParseFloat(os.Args[6], 64)
		load(os.Args[2], os.Args[3], connections, atOnce, seconds)
	}
}
