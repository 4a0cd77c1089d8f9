package remote

import (
	"context"
	"errors"
)

// Sentinel errors. Each comes wrapped in a sentence that names the object.
var (
	// ErrExists says that an object is there already and was left as it is.
	ErrExists = errors.New("object exists")
	// ErrNotFound says that there is no such object.
	ErrNotFound = errors.New("no such object")
)

// Bucket is an object store, below some prefix. It is safe for concurrent use. Names have slashes.
type Bucket interface {
	// Upload stores an object of parts, in the place of one that is there. part gives the content of part i, in buf if it likes; several goroutines
	// call it, and again for a part whose transfer failed. All parts but the last have partBytes. After an error nothing is there that List shows.
	Upload(ctx context.Context, name string, parts int, partBytes int64, part func(ctx context.Context, i int, buf []byte) ([]byte, error)) error
	// PutNew stores a small object if there is none of that name; else ErrExists.
	PutNew(ctx context.Context, name string, data []byte) error
	// Read fills dst from a place on; a missing object, or one that is shorter, gives an error.
	Read(ctx context.Context, name string, at int64, dst []byte) error
	// List gives the objects whose names begin so, in any order.
	List(ctx context.Context, prefix string) ([]Object, error)
	// Remove removes objects; missing ones are no error.
	Remove(ctx context.Context, names []string) error
}

// Object is one object in a bucket.
type Object struct {
	Name  string
	Bytes int64
}
