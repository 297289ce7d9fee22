// A program that calls others: what the tests ask of an instance's names and network.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"time"
)

type told struct {
	Status    int      `json:"status"`
	Body      string   `json:"body"`
	Addresses []string `json:"addresses"`
	NotFound  bool     `json:"notFound"`
	Error     string   `json:"error"`
}

func main() {
	if len(os.Args) > 2 {
		step(os.Args[1], os.Args[2:])
		return
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s was asked as %s", os.Getenv("K_SERVICE"), r.Host)
	})
	http.HandleFunc("/get", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(get(r)) })
	http.HandleFunc("/lookup", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(lookup(r)) })
	http.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(dial(r)) })
	http.HandleFunc("/addresses", func(w http.ResponseWriter, r *http.Request) { json.NewEncoder(w).Encode(addresses()) })
	http.HandleFunc("/mode", func(w http.ResponseWriter, r *http.Request) {
		found, err := os.Stat(r.URL.Query().Get("path"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusNotFound)
			return
		}
		fmt.Fprint(w, found.Mode())
	})
	if err := http.ListenAndServe(":"+os.Getenv("PORT"), nil); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// get asks ?url, with ?host as the Host header if there is one. A new connection each time.
func get(r *http.Request) told {
	request, err := http.NewRequest(http.MethodGet, r.URL.Query().Get("url"), nil)
	if err != nil {
		return told{Error: err.Error()}
	}
	request.Host = r.URL.Query().Get("host")
	client := http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answer, err := client.Do(request)
	if err != nil {
		return told{NotFound: notFound(err), Error: err.Error()}
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return told{Error: err.Error()}
	}
	return told{Status: answer.StatusCode, Body: string(body)}
}

func lookup(r *http.Request) told {
	limit, cancel := context.WithTimeout(r.Context(), 10*time.Second)
	defer cancel()
	found, err := net.DefaultResolver.LookupHost(limit, r.URL.Query().Get("name"))
	if err != nil {
		return told{NotFound: notFound(err), Error: err.Error()}
	}
	return told{Addresses: found}
}

// dial opens a TCP connection to ?address and says whether somebody accepts it.
func dial(r *http.Request) told {
	connection, err := net.DialTimeout("tcp", r.URL.Query().Get("address"), 2*time.Second)
	if err != nil {
		return told{Error: err.Error()}
	}
	connection.Close()
	return told{Status: http.StatusOK}
}

// step does one thing as a step of a build, and prints what came of it.
func step(verb string, words []string) {
	switch verb {
	case "dial":
		dialAll(words)
	case "print":
		content, err := os.ReadFile(words[0])
		fmt.Println(string(content), err)
	case "write":
		if err := os.WriteFile(words[0], nil, 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	case "exists":
		if _, err := os.Stat(words[0]); err != nil {
			fmt.Println(words[0], "is missing")
			return
		}
		fmt.Println(words[0], "is there")
	}
}

// dialAll says of each address whether somebody accepts a connection there.
func dialAll(addresses []string) {
	for _, address := range addresses {
		connection, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err != nil {
			fmt.Printf("%s closed\n", address)
			continue
		}
		connection.Close()
		fmt.Printf("%s open\n", address)
	}
}

// addresses tells those of this instance, of every interface.
func addresses() told {
	found, err := net.InterfaceAddrs()
	if err != nil {
		return told{Error: err.Error()}
	}
	texts := []string{}
	for _, one := range found {
		texts = append(texts, one.String())
	}
	return told{Addresses: texts}
}

// notFound says whether there is no such name, as opposed to a server that does not respond.
func notFound(err error) bool {
	var failed *net.DNSError
	return errors.As(err, &failed) && failed.IsNotFound
}
