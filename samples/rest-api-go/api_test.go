package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

func get(t *testing.T, server *httptest.Server, path string) (int, string, http.Header) {
	t.Helper()
	response, err := http.Get(server.URL + path)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body), response.Header
}

func serve(t *testing.T, api *API) *httptest.Server {
	t.Helper()
	if api.Client == nil {
		api.Client = &http.Client{Timeout: time.Second}
	}
	server := httptest.NewServer(api.Handler())
	t.Cleanup(server.Close)
	return server
}

func TestAnswers(t *testing.T) {
	prices := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/stock/IBM/price" {
			fmt.Fprintln(w, "189.90")
			return
		}
		http.NotFound(w, r)
	}))
	defer prices.Close()
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()

	for _, c := range []struct {
		name, source, path string
		status             int
		text               string
	}{
		{"the root names the resource", "", "/", 200, "Welcome to the v1 app!\n"},
		{"the resource asks for a ticker", "", "/v1", 404, "v1 ticker not found!, require /v1/{ticker}\n"},
		{"a price comes from the source", prices.URL + "/stock", "/v1/IBM", 200, "v1 price for ticker IBM is 189.90\n"},
		{"an unknown ticker says what the source said", prices.URL + "/stock", "/v1/NOPE", 502, "404 Not Found"},
		{"a ticker cannot leave its path", prices.URL + "/stock", "/v1/..%2FIBM", 502, "404 Not Found"},
		{"no source is said clearly", "", "/v1/IBM", 502, "set STOCK_API"},
		{"a dead source is said clearly", gone.URL, "/v1/IBM", 502, "does not answer"},
		{"another path is not found", "", "/v2", 404, "not found"},
		{"a bad sleep is refused", "", "/?sleep=soon", 400, "is not a duration"},
		{"an endless sleep is refused", "", "/?sleep=24h", 400, "is not a duration"},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := serve(t, &API{Resource: "v1", StockAPI: c.source})
			status, text, _ := get(t, server, c.path)
			if status != c.status || !strings.Contains(text, c.text) {
				t.Errorf("GET %s = %d %q, want %d %q", c.path, status, text, c.status, c.text)
			}
		})
	}
}

func TestASlowSourceTimesOut(t *testing.T) {
	release := make(chan struct{})
	slow := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer slow.Close()
	defer close(release)
	server := serve(t, &API{Resource: "v1", StockAPI: slow.URL, Client: &http.Client{Timeout: 50 * time.Millisecond}})
	if status, text, _ := get(t, server, "/v1/IBM"); status != 502 || !strings.Contains(text, "does not answer") {
		t.Errorf("got %d %q", status, text)
	}
}

func TestConcurrencyIsCounted(t *testing.T) {
	const together = 5
	server := serve(t, &API{Resource: "v1", Instance: "one"})
	var all sync.WaitGroup
	for range together {
		all.Add(1)
		go func() {
			defer all.Done()
			get(t, server, "/?sleep=500ms")
		}()
	}
	all.Wait()
	_, _, header := get(t, server, "/")
	if header.Get("X-Instance") != "one" || header.Get("X-In-Flight") != "1" || header.Get("X-Max-In-Flight") != "5" {
		t.Errorf("got %v", header)
	}
}
