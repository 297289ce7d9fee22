// Program is what the containers of the runtime's tests run: it serves, ends, resists or eats memory as its arguments say.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

func main() {
	args := append(os.Args[1:], "serve")
	switch args[0] {
	case "serve":
		serve()
	case "exit": // exit CODE [MESSAGE]
		if len(os.Args) > 3 {
			fmt.Println(strings.Join(os.Args[3:], " "))
		}
		code, _ := strconv.Atoi(args[1])
		os.Exit(code)
	case "leave": // leave FILE TEXT
		if err := os.WriteFile(args[1], []byte(args[2]), 0o644); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		os.Exit(0)
	case "sleep": // runs until it is told to end, and never listens
		wait(syscall.SIGTERM)
	case "stubborn": // does not end when it is told to
		signal.Ignore(syscall.SIGTERM)
		wait(syscall.SIGUSR1)
	case "hog": // is killed for its memory
		var held [][]byte
		for {
			block := make([]byte, 8<<20)
			for i := range block {
				block[i] = 1
			}
			held = append(held, block)
			_ = held
		}
	case "streams": // writes to both
		fmt.Fprintln(os.Stdout, "to stdout")
		fmt.Fprintln(os.Stderr, "to stderr")
	default:
		fmt.Fprintln(os.Stderr, "unknown argument", args[0])
		os.Exit(2)
	}
}

func wait(which os.Signal) {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, which)
	<-asked
	os.Exit(143)
}

func serve() {
	port := os.Getenv("PORT")
	if port == "" {
		port = "8080"
	}
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		millis, _ := strconv.Atoi(r.FormValue("sleep"))
		time.Sleep(time.Duration(millis) * time.Millisecond)
		fmt.Fprintln(w, os.Getenv("HOSTNAME"))
	})
	var inside atomic.Int32
	http.HandleFunc("/work", func(w http.ResponseWriter, r *http.Request) { // the host, and how many requests it has
		now := inside.Add(1)
		defer inside.Add(-1)
		io.Copy(io.Discard, r.Body)
		millis, _ := strconv.Atoi(r.URL.Query().Get("sleep"))
		time.Sleep(time.Duration(millis) * time.Millisecond)
		fmt.Fprintln(w, os.Getenv("HOSTNAME"), now)
	})
	http.HandleFunc("/facts", facts)
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) { // what it holds, or why it cannot be read
		content, err := os.ReadFile(r.FormValue("path"))
		if err != nil {
			content = []byte("error: " + err.Error())
		}
		w.Write(content)
	})
	http.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintln(w, os.WriteFile(r.FormValue("path"), []byte(r.FormValue("data")), 0o644))
	})
	http.HandleFunc("/stat", func(w http.ResponseWriter, r *http.Request) {
		found, err := os.Stat(r.FormValue("path"))
		if err != nil {
			fmt.Fprintln(w, err)
			return
		}
		fmt.Fprintln(w, found.Mode())
	})
	http.HandleFunc("/mark", func(w http.ResponseWriter, _ *http.Request) {
		_, err := os.Stat("/mark")
		fmt.Fprintln(w, err == nil)
		os.WriteFile("/mark", nil, 0o600)
	})
	http.HandleFunc("/dial", func(w http.ResponseWriter, r *http.Request) {
		connection, err := net.DialTimeout(r.FormValue("network"), r.FormValue("to"), time.Second)
		if err != nil {
			fmt.Fprintln(w, "closed:", err)
			return
		}
		connection.Close()
		fmt.Fprintln(w, "open")
	})
	server := http.Server{Addr: net.JoinHostPort(os.Getenv("HOST"), port)} // HOST: empty is every address
	asked, ended := make(chan os.Signal, 1), make(chan struct{})
	signal.Notify(asked, syscall.SIGTERM)
	go func() {
		<-asked
		server.Shutdown(context.Background())
		close(ended)
	}()
	fmt.Println("serving on", port)
	if err := server.ListenAndServe(); err != http.ErrServerClosed {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	<-ended
}

// facts tells what this process may do and what it sees.
func facts(w http.ResponseWriter, _ *http.Request) {
	told := map[string]string{"uid": strconv.Itoa(os.Getuid()), "gid": strconv.Itoa(os.Getgid()), "args": strings.Join(os.Args, " ")}
	status, _ := os.ReadFile("/proc/self/status")
	for _, line := range strings.Split(string(status), "\n") {
		if name, value, ok := strings.Cut(line, ":"); ok {
			told[name] = strings.TrimSpace(value)
		}
	}
	told["hostname"], _ = os.Hostname()
	told["dir"], _ = os.Getwd()
	if tmp, err := os.Stat("/tmp"); err == nil {
		told["tmp"] = tmp.Mode().String()
	}
	if _, err := os.Stdin.Read(make([]byte, 1)); err != nil {
		told["stdin"] = err.Error()
	}
	if err := os.WriteFile("/written", nil, 0o600); err != nil {
		told["root"] = err.Error()
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	told["mounts"] = string(mounts)
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		told["env "+name] = value
	}
	json.NewEncoder(w).Encode(told)
}
