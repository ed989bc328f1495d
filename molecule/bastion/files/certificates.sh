#!/bin/sh
# A CA, a certificate for the log server, one for the bastions, and one of the same CA for somebody else.
set -eu
mkdir -p "$1"
cd "$1"
new() { openssl req -newkey rsa:2048 -nodes -keyout "$1.key" -out "$1.csr" -subj "/CN=$2" 2>/dev/null; }
openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj "/CN=Logs CA" 2>/dev/null
for name in logs other bastion; do
  new "$name" "$name.lab.internal"
  printf 'subjectAltName=DNS:%s.lab.internal\n' "$name" >"$name.ext"
  openssl x509 -req -in "$name.csr" -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile "$name.ext" \
    -out "$name.pem" 2>/dev/null
done
