"""Static sites: the files and a small server, which is compiled in the build so that no other base image is needed."""

from knoll.builds.recipes.tree import APP_USER, DEFAULT_PORT, Recipe, Tree


def recipe(tree: Tree) -> Recipe | None:
    """The first folder that has an index.html is the site."""
    index = tree.first("index.html", "public/index.html", "dist/index.html", "build/index.html")
    if not index:
        return None
    folder = index.rpartition("/")[0] or "."
    return Recipe("static site", index, _DOCKERFILE.replace("@FOLDER@", folder))


# No directory listings, and no files or folders whose name begins with a dot (except /.well-known/).
_DOCKERFILE = f"""\
FROM golang:1.24 AS build
WORKDIR /server
COPY <<"END" main.go
package main

import (
	"log"
	"net/http"
	"os"
	"path"
	"strings"
)

func hidden(name string) bool {{
	for _, part := range strings.Split(name, "/") {{
		if strings.HasPrefix(part, ".") && part != ".well-known" {{
			return true
		}}
	}}
	return false
}}

func main() {{
	files := http.FileServer(http.Dir("/site"))
	http.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {{
		name := path.Clean("/" + r.URL.Path)
		info, err := os.Stat("/site" + name)
		if err == nil && info.IsDir() {{
			_, err = os.Stat("/site" + path.Join(name, "index.html"))
		}}
		if err != nil || hidden(name) {{
			http.NotFound(w, r)
			return
		}}
		files.ServeHTTP(w, r)
	}})
	log.Fatal(http.ListenAndServe(":"+os.Getenv("PORT"), nil))
}}
END
RUN --mount=type=cache,target=/root/.cache/go-build \\
    CGO_ENABLED=0 go build -trimpath -ldflags="-s -w" -o /serve main.go

FROM scratch
COPY --from=build /serve /serve
COPY @FOLDER@ /site/
ENV PORT={DEFAULT_PORT}
USER {APP_USER}
ENTRYPOINT ["/serve"]
"""
