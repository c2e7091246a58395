// Package web holds kiln's page, built from the TypeScript beside it and embedded in the binary.
//
// There is one function, Handler. The built files in dist are committed, so that kiln builds with Go alone; after a
// change of the sources, `npm run build` renews them. The page is static: everything it knows comes from the
// API of the origin that served it.
package web

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io/fs"
	"net/http"
	"path"
	"strings"
	"time"
)

//go:embed all:dist
var dist embed.FS

// policy lets the page load its own files and ask its own origin, and nothing else: a function name in a profile is
// somebody else's text, and must stay text even if the page had a hole.
const policy = "default-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'"

type asset struct {
	name        string
	contentType string
	cache       string
	etag        string
	body        []byte
}

// Handler serves the page at / and its files below it. A path that is no file of the page is 404, so that a mistyped
// API path never answers with HTML.
func Handler() http.Handler {
	assets, err := load(dist)
	if err != nil {
		panic(err) // the files are part of the binary: wrong here means wrong in every run
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a, ok := assets[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the page is only read", http.StatusMethodNotAllowed)
			return
		}
		h := w.Header()
		h.Set("Content-Type", a.contentType)
		h.Set("Cache-Control", a.cache)
		h.Set("ETag", a.etag)
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		http.ServeContent(w, r, a.name, time.Time{}, bytes.NewReader(a.body))
	})
}

// load reads the built page and maps URL paths to its files.
func load(files fs.FS) (map[string]asset, error) {
	root, err := fs.Sub(files, "dist")
	if err != nil {
		return nil, fmt.Errorf("open the built page: %w", err)
	}
	assets := make(map[string]asset)
	err = fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		body, err := fs.ReadFile(root, name)
		if err != nil {
			return err
		}
		contentType := contentTypeOf(name)
		if contentType == "" {
			return fmt.Errorf("%s: no content type for %q", name, path.Ext(name))
		}
		sum := sha256.Sum256(body)
		assets["/"+name] = asset{
			name:        name,
			contentType: contentType,
			cache:       cacheControl(name),
			etag:        `"` + hex.EncodeToString(sum[:16]) + `"`,
			body:        body,
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the built page: %w", err)
	}
	index, ok := assets["/index.html"]
	if !ok {
		return nil, fmt.Errorf("read the built page: index.html: %w", fs.ErrNotExist)
	}
	assets["/"] = index
	return assets, nil
}

// contentTypeOf is written down because mime.TypeByExtension depends on the machine. A built file of another kind
// needs a line here.
func contentTypeOf(name string) string {
	switch path.Ext(name) {
	case ".html":
		return "text/html; charset=utf-8"
	case ".js":
		return "text/javascript; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	}
	return ""
}

// cacheControl lets browsers keep what carries a hash of its content in its name, and ask again for the rest.
func cacheControl(name string) string {
	if strings.HasPrefix(name, "assets/") {
		return "public, max-age=31536000, immutable"
	}
	return "no-cache"
}
