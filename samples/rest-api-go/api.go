package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Longest ?sleep= that is taken, and most bytes of a price that are read.
const (
	maxSleep      = 10 * time.Minute
	maxPriceBytes = 4096
)

// API answers for one revision.
type API struct {
	Resource string       // named in every answer
	StockAPI string       // base URL of the price source; the price of IBM is at <StockAPI>/IBM/price
	Instance string       // named in the X-Instance header
	Client   *http.Client // asks StockAPI; has a timeout

	held gauge
}

// Handler routes the three resources.
func (a *API) Handler() http.Handler {
	root := "/" + url.PathEscape(a.Resource)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", a.index)
	mux.HandleFunc("GET "+root+"/{$}", a.askForTicker)
	mux.HandleFunc("GET "+root, a.askForTicker)
	mux.HandleFunc("GET "+root+"/{ticker}", a.price)
	return a.observed(mux)
}

func (a *API) index(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprintf(w, "Welcome to the %s app!\n", a.Resource)
}

func (a *API) askForTicker(w http.ResponseWriter, _ *http.Request) {
	w.WriteHeader(http.StatusNotFound)
	fmt.Fprintf(w, "%s ticker not found!, require /%s/{ticker}\n", a.Resource, a.Resource)
}

func (a *API) price(w http.ResponseWriter, r *http.Request) {
	ticker := r.PathValue("ticker")
	price, err := a.fetch(r, ticker)
	if err != nil {
		log.Printf("price of %s: %v", ticker, err)
		w.WriteHeader(http.StatusBadGateway)
		fmt.Fprintf(w, "%s has no price for ticker %s: %v\n", a.Resource, ticker, err)
		return
	}
	fmt.Fprintf(w, "%s price for ticker %s is %s\n", a.Resource, ticker, price)
}

func (a *API) fetch(r *http.Request, ticker string) (string, error) {
	if a.StockAPI == "" {
		return "", errors.New("no price source; set STOCK_API to the base URL of one, which answers /<ticker>/price")
	}
	target, err := url.JoinPath(a.StockAPI, url.PathEscape(ticker), "price")
	if err != nil {
		return "", fmt.Errorf("STOCK_API is not a URL: %w", err)
	}
	request, err := http.NewRequestWithContext(r.Context(), http.MethodGet, target, nil)
	if err != nil {
		return "", fmt.Errorf("STOCK_API is not a URL: %w", err)
	}
	response, err := a.Client.Do(request)
	if err != nil {
		return "", fmt.Errorf("the price source does not answer: %w", err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		return "", fmt.Errorf("the price source says %s", response.Status)
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, maxPriceBytes))
	if err != nil {
		return "", fmt.Errorf("the price source broke off: %w", err)
	}
	return strings.TrimSpace(string(body)), nil
}

// observed counts requests, names the instance in each response, and holds those that ask for it with ?sleep=.
func (a *API) observed(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		now, most := a.held.enter()
		defer a.held.leave()
		w.Header().Set("X-Instance", a.Instance)
		w.Header().Set("X-In-Flight", strconv.Itoa(now))
		w.Header().Set("X-Max-In-Flight", strconv.Itoa(most))
		if asked := r.URL.Query().Get("sleep"); asked != "" {
			pause, err := time.ParseDuration(asked)
			if err != nil || pause < 0 || pause > maxSleep {
				http.Error(w, fmt.Sprintf("sleep=%q is not a duration from 0 to %s, such as 300ms or 2s", asked, maxSleep), http.StatusBadRequest)
				return
			}
			select {
			case <-time.After(pause):
			case <-r.Context().Done():
				return
			}
		}
		next.ServeHTTP(w, r)
	})
}

// gauge counts what is inside, and remembers the most that ever was.
type gauge struct {
	mutex sync.Mutex
	now   int
	most  int
}

func (g *gauge) enter() (now, most int) {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.now++
	g.most = max(g.most, g.now)
	return g.now, g.most
}

func (g *gauge) leave() {
	g.mutex.Lock()
	defer g.mutex.Unlock()
	g.now--
}
