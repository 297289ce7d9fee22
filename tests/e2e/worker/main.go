// An app for tests of scaling: works for as long as it is asked to (?ms=300), says which instance of which revision it
// is and since when it runs, and fails on purpose (FAIL: every request, with that status; SLOW: so many milliseconds more).
package main

import (
	"fmt"
	"net/http"
	"os"
	"strconv"
	"time"
)

func main() {
	began := time.Now()
	fail, _ := strconv.Atoi(os.Getenv("FAIL"))
	slow, _ := strconv.Atoi(os.Getenv("SLOW"))
	http.HandleFunc("/", func(answer http.ResponseWriter, request *http.Request) {
		work, _ := strconv.Atoi(request.URL.Query().Get("ms"))
		time.Sleep(time.Duration(work+slow) * time.Millisecond)
		if fail != 0 {
			answer.WriteHeader(fail)
		}
		fmt.Fprintf(answer, "%s %s %.3f", os.Getenv("K_REVISION"), os.Getenv("HOSTNAME"), float64(began.UnixMilli())/1000)
	})
	panic(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}
