package main

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"io"
	"net/http"
)

const (
	text     = 0x81 // whole, RFC 6455 section 5.2
	closing  = 0x88
	guid     = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
	maxFrame = 125
)

// ending is closed on SIGTERM: each websocket then says 1001 (going away).
var ending = make(chan struct{})

// websocket echoes short messages; at "close" it closes with 4001, and it answers a close with the same code.
func websocket(w http.ResponseWriter, r *http.Request) {
	connection, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	defer connection.Close()
	active.Add(1)
	defer active.Add(-1)
	key := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + guid))
	io.WriteString(connection, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Accept: "+base64.StdEncoding.EncodeToString(key[:])+"\r\n\r\n")
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-ending:
			connection.Write(goodbye(1001))
		case <-done:
		}
	}()
	for {
		kind, payload, err := frame(buffered.Reader)
		switch {
		case err != nil:
			return
		case kind == closing:
			connection.Write(append([]byte{closing, byte(len(payload))}, payload...))
			return
		case string(payload) == "close":
			connection.Write(goodbye(4001))
		default:
			connection.Write(append([]byte{text, byte(len(payload))}, payload...))
		}
	}
}

func goodbye(code uint16) []byte {
	return binary.BigEndian.AppendUint16([]byte{closing, 2}, code)
}

// frame reads one masked frame of a client.
func frame(from *bufio.Reader) (kind byte, payload []byte, err error) {
	head := make([]byte, 6)
	if _, err = io.ReadFull(from, head); err != nil {
		return 0, nil, err
	}
	length := head[1] & 0x7f
	if length > maxFrame {
		return 0, nil, io.ErrShortBuffer
	}
	payload = make([]byte, length)
	_, err = io.ReadFull(from, payload)
	for at := range payload {
		payload[at] ^= head[2+at%4]
	}
	return head[0], payload, err
}
