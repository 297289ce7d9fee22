// A program whose probes can be switched: ready some time after its start, failing when told.
//
//	READY_AFTER  seconds after the start until it is ready
//	LISTEN_LATE  when set, it does not even listen before
//
// With the argument "probe" it asks the one that listens, and exits as the answer says.
package main

import (
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"strconv"
	"sync/atomic"
	"time"
)

type state struct {
	Started   float64 `json:"started"` // epoch seconds
	ReadyAt   float64 `json:"readyAt"`
	Hits      int32   `json:"hits"` // probes since the start that were answered well
	UserAgent string  `json:"userAgent"`
	Headers   any     `json:"headers"`
}

func main() {
	if len(os.Args) > 1 && os.Args[1] == "probe" {
		probe()
	}
	delay, err := strconv.ParseFloat(os.Getenv("READY_AFTER"), 64)
	if err != nil {
		delay = 0
	}
	started := time.Now()
	ready := started.Add(time.Duration(delay * float64(time.Second)))
	var hits atomic.Int32
	var failing atomic.Bool
	var agent atomic.Value
	agent.Store("")
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		agent.Store(r.UserAgent())
		if failing.Load() || time.Now().Before(ready) {
			http.Error(w, "not now", http.StatusServiceUnavailable)
			return
		}
		hits.Add(1)
	})
	http.HandleFunc("/fail", func(w http.ResponseWriter, r *http.Request) { failing.Store(true) })
	http.HandleFunc("/mend", func(w http.ResponseWriter, r *http.Request) { failing.Store(false) })
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(state{
			seconds(started), seconds(ready), hits.Load(), agent.Load().(string), r.Header,
		})
	})
	if os.Getenv("LISTEN_LATE") != "" {
		time.Sleep(time.Until(ready))
	}
	listener, err := net.Listen("tcp", ":"+os.Getenv("PORT"))
	if err == nil {
		err = http.Serve(listener, nil)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func seconds(t time.Time) float64 { return float64(t.UnixMicro()) / 1e6 }

func probe() {
	client := http.Client{Timeout: time.Second}
	answer, err := client.Get("http://127.0.0.1:" + os.Getenv("PORT") + "/healthz")
	if err != nil || answer.StatusCode != http.StatusOK {
		fmt.Fprintln(os.Stderr, "not ready:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
