// A program that tells of the place it runs in: what the tests of the runtime contract ask for.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

type file struct {
	Mode     string `json:"mode"`
	Target   string `json:"target"`
	Writable bool   `json:"writable"`
	Error    string `json:"error"`
}

type mount struct {
	Path    string   `json:"path"`
	Type    string   `json:"type"`
	Options []string `json:"options"`
}

type cgroup struct {
	Value      string `json:"value"`
	Error      string `json:"error"`
	WriteError string `json:"writeError"`
}

type request struct {
	Host    string      `json:"host"`
	Method  string      `json:"method"`
	Proto   string      `json:"proto"`
	URI     string      `json:"uri"`
	Headers http.Header `json:"headers"`
}

type report struct {
	Args     []string          `json:"args"`
	Env      map[string]string `json:"env"`
	Cwd      string            `json:"cwd"`
	Hostname string            `json:"hostname"`
	UID      int               `json:"uid"`
	EUID     int               `json:"euid"`
	GID      int               `json:"gid"`
	Stdin    string            `json:"stdin"`
	Files    map[string]file   `json:"files"`
	Mounts   []mount           `json:"mounts"`
	Cgroups  map[string]cgroup `json:"cgroups"`
	Request  request           `json:"request"`
	Probes   []request         `json:"probes"`
}

var paths = []string{
	"/tmp", "/var/log", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname", "/dev/console", "/dev/log",
	"/dev/fd", "/dev/full", "/dev/null", "/dev/ptmx", "/dev/random", "/dev/stdin", "/dev/stdout", "/dev/stderr",
	"/dev/tty", "/dev/urandom", "/dev/zero", "/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2",
}

// Version 1 and 2 have other files; those of the other one are reported as missing.
var limits = []string{
	"/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.memsw.limit_in_bytes",
	"/sys/fs/cgroup/cpu/cpu.cfs_period_us", "/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "/sys/fs/cgroup/cpu/cpu.shares",
	"/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.swap.max", "/sys/fs/cgroup/cpu.max", "/sys/fs/cgroup/cpu.weight",
}

var (
	stdin  atomic.Value
	seen   atomic.Pointer[request]
	hoard  [][]byte
	active atomic.Int32
	sick   atomic.Bool
)

func main() {
	stdin.Store("nothing came")
	go func() {
		_, err := os.Stdin.Read(make([]byte, 1))
		stdin.Store(fmt.Sprint(err))
	}()
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(look(r))
	})
	http.HandleFunc("/probed", func(w http.ResponseWriter, r *http.Request) { seen.Store(told(r)) })
	http.HandleFunc("/bloat", bloat)
	http.HandleFunc("/slow", slow)
	http.HandleFunc("/exit", func(w http.ResponseWriter, r *http.Request) { os.Exit(3) })
	http.HandleFunc("/beside", beside)
	http.HandleFunc("/websocket", websocket)
	http.HandleFunc("/alive", func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			http.Error(w, "sick", http.StatusInternalServerError)
		}
	})
	http.HandleFunc("/sicken", func(w http.ResponseWriter, r *http.Request) { sick.Store(true) })
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	port := os.Getenv("PORT")
	if port == "" {
		port = "8882" // a sidecar is not told any
	}
	server := http.Server{Addr: ":" + port, Protocols: protocols}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		fmt.Println("SIGTERM with", active.Load(), "requests")
		if os.Getenv("RUDE") != "" {
			os.Exit(0)
		}
		close(ending)
		if os.Getenv("STUBBORN") == "" {
			end()
		}
	}()
	fmt.Println("out: started")
	fmt.Fprintln(os.Stderr, "err: started")
	if err := server.ListenAndServe(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// end lets what runs end first.
func end() {
	for active.Load() > 0 {
		time.Sleep(10 * time.Millisecond)
	}
	os.Exit(0)
}

func told(r *http.Request) *request {
	return &request{Host: r.Host, Method: r.Method, Proto: r.Proto, URI: r.RequestURI, Headers: r.Header}
}

func look(r *http.Request) report {
	found := report{
		Args: os.Args, Env: map[string]string{}, UID: os.Getuid(), EUID: os.Geteuid(), GID: os.Getgid(),
		Stdin: stdin.Load().(string), Files: map[string]file{}, Mounts: mounts(), Cgroups: map[string]cgroup{}, Request: *told(r),
	}
	found.Cwd, _ = os.Getwd()
	found.Hostname, _ = os.Hostname()
	for _, pair := range os.Environ() {
		name, value, _ := strings.Cut(pair, "=")
		found.Env[name] = value
	}
	for _, path := range paths {
		found.Files[path] = stat(path)
	}
	for _, path := range limits {
		found.Cgroups[path] = limit(path)
	}
	if probe := seen.Load(); probe != nil {
		found.Probes = []request{*probe}
	}
	return found
}

func stat(path string) file {
	info, err := os.Stat(path)
	if err != nil {
		return file{Error: err.Error()}
	}
	found := file{Mode: info.Mode().String()}
	found.Target, _ = os.Readlink(path)
	if info.IsDir() && !strings.HasPrefix(path, "/proc") && !strings.HasPrefix(path, "/dev") {
		made, err := os.CreateTemp(path, "tried")
		if found.Writable = err == nil; found.Writable {
			made.Close()
			os.Remove(filepath.Clean(made.Name()))
		}
	}
	return found
}

// limit reads a file and tries to write its own content back to it.
func limit(path string) cgroup {
	content, err := os.ReadFile(path)
	if err != nil {
		return cgroup{Error: err.Error()}
	}
	found := cgroup{Value: strings.TrimSpace(string(content))}
	if err := os.WriteFile(path, content, 0o644); err != nil {
		found.WriteError = err.Error()
	}
	return found
}

func mounts() []mount {
	table, err := os.Open("/proc/mounts")
	if err != nil {
		return nil
	}
	defer table.Close()
	var found []mount
	for lines := bufio.NewScanner(table); lines.Scan(); {
		if words := strings.Fields(lines.Text()); len(words) > 3 {
			found = append(found, mount{words[1], words[2], strings.Split(words[3], ",")})
		}
	}
	return found
}

// bloat keeps ?mb megabytes that were really touched.
func bloat(w http.ResponseWriter, r *http.Request) {
	size, err := strconv.Atoi(r.URL.Query().Get("mb"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	for ; size > 0; size-- {
		piece := make([]byte, 1<<20)
		for at := 0; at < len(piece); at += 4096 {
			piece[at] = 1
		}
		hoard = append(hoard, piece)
	}
	fmt.Fprintln(w, len(hoard))
}

// beside passes on what the sidecar says of itself.
func beside(w http.ResponseWriter, r *http.Request) {
	answer, err := http.Get("http://localhost:8882/")
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadGateway)
		return
	}
	defer answer.Body.Close()
	io.Copy(w, answer.Body)
}

// slow says that it began, waits ?seconds or for the caller to go, and says that it ended.
func slow(w http.ResponseWriter, r *http.Request) {
	active.Add(1)
	defer active.Add(-1)
	seconds, err := strconv.ParseFloat(r.URL.Query().Get("seconds"), 64)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	io.WriteString(w, "began\n")
	if err := http.NewResponseController(w).Flush(); err != nil && !errors.Is(err, http.ErrNotSupported) {
		return
	}
	select {
	case <-time.After(time.Duration(seconds * float64(time.Second))):
		io.WriteString(w, "ended\n")
	case <-r.Context().Done():
	}
}
