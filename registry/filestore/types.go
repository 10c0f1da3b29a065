package filestore

import (
	"mime"
	"path"
	"strings"
)

// octetStream is the type of what is known to be bytes.
const octetStream = "application/octet-stream"

// uploadType is the type that a file is kept with: the one that it was sent
// with, unless that says nothing, else that of its name's extension.
func uploadType(contentType string, p Path) string {
	mediaType, parameters, err := mime.ParseMediaType(contentType)
	switch {
	case err != nil || !strings.Contains(mediaType, "/"):
	case mediaType == octetStream:
	case mediaType == "application/x-www-form-urlencoded": // what curl says of all that it sends by --data-binary
	case strings.HasPrefix(mediaType, "multipart/"): // which the content cannot be without its boundary
	default:
		if formatted := mime.FormatMediaType(mediaType, parameters); formatted != "" {
			return formatted
		}
	}
	return extensionType(p)
}

// extensionType is the media type that a file's name tells. The table is our
// own: the mime package's differs from machine to machine.
func extensionType(p Path) string {
	_, name := p.parent()
	switch strings.ToLower(path.Ext(name)) {
	case ".txt", ".log", ".sha1", ".sha256", ".sha512", ".md5", ".asc", ".md":
		return "text/plain; charset=utf-8"
	case ".html", ".htm":
		return "text/html; charset=utf-8"
	case ".css":
		return "text/css; charset=utf-8"
	case ".js", ".mjs":
		return "text/javascript; charset=utf-8"
	case ".svg":
		return "image/svg+xml"
	case ".png":
		return "image/png"
	case ".json", ".spdx", ".sarif", ".jsonl":
		return "application/json"
	case ".yaml", ".yml":
		return "application/yaml"
	case ".xml":
		return "application/xml"
	case ".gz", ".tgz":
		return "application/gzip"
	case ".bz2":
		return "application/x-bzip2"
	case ".xz":
		return "application/x-xz"
	case ".zst":
		return "application/zstd"
	case ".tar":
		return "application/x-tar"
	case ".zip":
		return "application/zip"
	case ".wasm":
		return "application/wasm"
	case ".pem", ".crt", ".cert":
		return "application/x-pem-file"
	case ".pdf":
		return "application/pdf"
	case ".rpm":
		return "application/x-rpm"
	case ".deb":
		return "application/vnd.debian.binary-package"
	}
	return octetStream
}
