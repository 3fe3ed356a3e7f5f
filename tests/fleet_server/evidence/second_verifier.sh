#!/bin/sh
# A second implementation of the core checks of a bundle: each file is the one that its manifest names, the manifest is
# signed by the device's certificate and that by the root, and the log's checkpoint is signed by the log's key.
#
#   sh second_verifier.sh BUNDLE.zip ROOT.pem LOG.pub      exit code 0: all three hold; 1: one does not
#
# Needs openssl 3, sha256sum, base64, sed, od and unzip or python3 to take a member out.
set -u
bundle=$1 root=$2 log=$3
work=$(mktemp -d) || exit 2
trap 'rm -rf "$work"' EXIT
wrong=0

no() { echo "FAIL $*"; wrong=1; }
take() {
  if command -v unzip >/dev/null; then unzip -p "$bundle" "$1" 2>/dev/null
  else python3 -c 'import sys, zipfile; sys.stdout.buffer.write(zipfile.ZipFile(sys.argv[1]).read(sys.argv[2]))' "$bundle" "$1" 2>/dev/null
  fi
}
list() {
  if command -v unzip >/dev/null; then unzip -Z1 "$bundle" 2>/dev/null
  else python3 -m zipfile -l "$bundle" 2>/dev/null | sed -n 's/ .*//; /\//p'
  fi
}
text() { sed -n "s/.*\"$1\":\"\([^\"]*\)\".*/\1/p"; }

pieces=$(list | sed -n 's,^pieces/\([0-9a-f]*\)/original$,\1,p')
[ -n "$pieces" ] || no "no piece in it"
for piece in $pieces; do
  take "pieces/$piece/manifest.dsse.json" >"$work/envelope"
  take "pieces/$piece/certificate.pem" >"$work/chain"
  text payload <"$work/envelope" | base64 -d >"$work/payload" 2>/dev/null || no "$piece: no payload"
  text sig <"$work/envelope" | base64 -d >"$work/sig" 2>/dev/null || no "$piece: no signature"
  kind=$(text payloadType <"$work/envelope")

  # unaltered
  [ "$(sha256sum <"$work/payload" | cut -c1-32)" = "$piece" ] || no "$piece: not its manifest"
  told=$(sed -n 's/.*"size":[0-9]*,"sha256":"\([0-9a-f]*\)".*/\1/p' "$work/payload")
  made=$(take "pieces/$piece/original" | sha256sum | cut -c1-64)
  [ -n "$told" ] && [ "$told" = "$made" ] || no "$piece: altered"

  # from the device
  device=$(sed -n 's/^{"t":"manifest","v":1,"device":"\([a-z0-9-]*\)".*/\1/p' "$work/payload")
  { printf 'DSSEv1 %d %s %d ' "${#kind}" "$kind" "$(wc -c <"$work/payload")"; cat "$work/payload"; } >"$work/signed"
  openssl x509 -in "$work/chain" -pubkey -noout >"$work/key" 2>/dev/null || no "$piece: no certificate"
  openssl dgst -sha256 -verify "$work/key" -signature "$work/sig" "$work/signed" >/dev/null 2>&1 ||
    no "$piece: not signed by the certificate"
  name=$(openssl x509 -in "$work/chain" -noout -subject -nameopt RFC2253 2>/dev/null)
  [ "$name" = "subject=CN=$device" ] || no "$piece: the certificate is another device's"
  at=$(sed -n 's/.*"end":{"t_ms":\([0-9]*\).*/\1/p' "$work/payload")
  openssl verify -attime "$((${at:-0} / 1000))" -CAfile "$root" -untrusted "$work/chain" "$work/chain" \
    >/dev/null 2>&1 || no "$piece: the certificate is not below the root"
done

# the log's signature: NAME+HASH+BASE64(1 || key), and in the note the line "— NAME BASE64(hash || signature)"
name=$(cut -d+ -f1 <"$log")
{ printf '\060\052\060\005\006\003\053\145\160\003\041\000'
  cut -d+ -f3- <"$log" | base64 -d | tail -c +2; } | openssl pkey -pubin -inform DER -out "$work/log.pem" 2>/dev/null
for checkpoint in $(list | grep '^log/[0-9]*/checkpoint$'); do
  take "$checkpoint" >"$work/note"
  sed '/^$/,$d' "$work/note" >"$work/text"
  sed -n "s,^— $name ,,p" "$work/note" | head -n 1 | base64 -d 2>/dev/null | tail -c +5 >"$work/sig"
  openssl pkeyutl -verify -pubin -inkey "$work/log.pem" -rawin -in "$work/text" -sigfile "$work/sig" \
    >/dev/null 2>&1 || no "$checkpoint: not signed by the log's key"
done
exit $wrong
