// Command rest-api-go is a small REST API whose answers say which revision gave them.
//
//	GET /                    Welcome to the <RESOURCE> app!
//	GET /<RESOURCE>          asks for a ticker
//	GET /<RESOURCE>/{ticker} the ticker's price, fetched from STOCK_API
//
// Any path takes ?sleep=300ms, which holds the request that long: it makes concurrency visible. Each response says which
// instance served it, how many requests that instance held at that moment, and the most it ever held.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		log.Fatal(err)
	}
}

func run() error {
	hostname, err := os.Hostname()
	if err != nil {
		return err
	}
	api := &API{
		Resource: fallback(os.Getenv("RESOURCE"), "NOT SPECIFIED"),
		StockAPI: os.Getenv("STOCK_API"),
		Instance: fallback(os.Getenv("HOSTNAME"), hostname),
		Client:   &http.Client{Timeout: 5 * time.Second},
	}
	server := &http.Server{
		Addr:              ":" + fallback(os.Getenv("PORT"), "8080"),
		Handler:           api.Handler(),
		ReadHeaderTimeout: 10 * time.Second,
	}

	stop, cancel := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer cancel()
	finished := make(chan error, 1)
	go func() {
		<-stop.Done()
		log.Print("stopping: requests in flight may finish")
		grace, done := context.WithTimeout(context.Background(), 5*time.Minute)
		defer done()
		finished <- server.Shutdown(grace)
	}()

	log.Printf("%s listens on %s", api.Resource, server.Addr)
	if err := server.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-finished
}

func fallback(value, otherwise string) string {
	if value == "" {
		return otherwise
	}
	return value
}
