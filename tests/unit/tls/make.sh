#!/usr/bin/env bash
# Makes the certificates and keys of tests/unit/test_tls.c in a folder (this one, when none is named). They are
# kept in the repository and hold for a hundred years, so the tests need no openssl. Secret they are not.
set -euo pipefail
cd "${1:-$(dirname "$0")}"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
now=20260101000000Z
later=21260101000000Z

cat >"$work/ca.cnf" <<CNF
[ca]
default_ca = own
[own]
new_certs_dir = $work
database = $work/index
serial = $work/serial
default_md = sha256
policy = any
unique_subject = no
copy_extensions = none
[any]
commonName = optional
organizationName = optional
[req]
distinguished_name = name
[name]
CNF
: >"$work/index"
echo 1000 >"$work/serial"

key() { # name, kind
    case $2 in
    p256) openssl ecparam -name prime256v1 -genkey -noout ;;
    p384) openssl ecparam -name secp384r1 -genkey -noout ;;
    rsa) openssl genrsa -traditional 2048 2>/dev/null ;;
    rsa1024) openssl genrsa -traditional 1024 2>/dev/null ;;
    ed25519) openssl genpkey -algorithm ed25519 ;;
    esac >"$1.key"
}

# certificate NAME KIND ISSUER SUBJECT EXTENSIONS [BEGIN END [OPTIONS OF ca ...]]: an issuer of the same name signs itself
certificate() {
    local name=$1 kind=$2 issuer=$3 subject=$4 extensions=$5 begin=${6:-$now} end=${7:-$later}
    shift $(($# > 7 ? 7 : $#))
    key "$name" "$kind"
    openssl req -new -config "$work/ca.cnf" -key "$name.key" -subj "$subject" -out "$work/request"
    printf '%b' "$extensions" >"$work/extensions"
    local signer=(-cert "$issuer.pem" -keyfile "$issuer.key")
    [ "$issuer" = "$name" ] && signer=(-selfsign -keyfile "$name.key")
    openssl ca -batch -notext -config "$work/ca.cnf" "${signer[@]}" -in "$work/request" -out "$work/made.pem" \
        -startdate "$begin" -enddate "$end" -extfile "$work/extensions" "$@" 2>"$work/log" ||
        { cat "$work/log" >&2; exit 1; }
    mv "$work/made.pem" "$name.pem"
}

authority='basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\nsubjectKeyIdentifier=hash\n'
server='extendedKeyUsage=serverAuth\n'
client='extendedKeyUsage=clientAuth\n'
names="$server"'subjectAltName=DNS:db.example.com,DNS:*.wild.example.com,IP:192.0.2.1,IP:2001:db8::1\n'

certificate root p256 root /CN=root "$authority"
certificate other p256 other /CN=other "$authority"
certificate old_root p256 old_root /CN=old "$authority" 20200101000000Z 20210101000000Z
certificate middle p256 root /CN=middle "$authority"

certificate p256 p256 root /CN=unused.example.com "$names"
certificate p384 p384 root /CN=unused.example.com "$names" "" "" -md sha384
certificate rsa rsa root /CN=unused.example.com "$names"
certificate ed25519 ed25519 root /CN=unused.example.com "$names"
certificate chain p256 middle /CN=unused.example.com "$names"
cat middle.pem >>chain.pem
certificate bare p256 middle /CN=unused.example.com "$names" # without the certificate between
certificate common p256 root /CN=db.example.com "$server"
certificate common_ip p256 root /CN=192.0.2.1 "$server"
certificate only_ip p256 root /CN=db.example.com "$server"'subjectAltName=IP:192.0.2.1\n'
certificate wild p256 root '/CN=*.wild.example.com' "$server"
certificate expired p256 root /CN=db.example.com "$names" 20200101000000Z 20210101000000Z
certificate early p256 root /CN=db.example.com "$names" 21200101000000Z 21260101000000Z
certificate foreign p256 other /CN=db.example.com "$names"
certificate rsa1024 rsa1024 root /CN=db.example.com "$names"
certificate alice p256 root /CN=alice "$client"'subjectAltName=DNS:bob,email:carol@example.com\n'
certificate user_chain p256 middle /CN=alice "$client"
cp user_chain.pem user_bare.pem
cp user_chain.key user_bare.key
cat middle.pem >>user_chain.pem
certificate mallory p256 other /CN=alice "$client"
certificate late p256 root /CN=alice "$client" 20200101000000Z 20210101000000Z
certificate self p256 self /CN=db.example.com 'basicConstraints=critical,CA:TRUE\n'

# Signatures of other kinds, for the hash of channel binding.
certificate rsa_root rsa rsa_root /CN=rsa "$authority"
certificate sha512 p256 rsa_root /CN=db.example.com "$names" "" "" -md sha512
certificate sha1 p256 rsa_root /CN=db.example.com "$names" "" "" -md sha1
certificate pss p256 rsa_root /CN=db.example.com "$names" "" "" -md sha384 -sigopt rsa_padding_mode:pss
certificate ed_root ed25519 ed_root /CN=ed "$authority" "" "" -md null
certificate ed_signed p256 ed_root /CN=db.example.com "$names" "" "" -md null

openssl pkcs8 -topk8 -in p256.key -passout pass:secret -out encrypted.key

# What tls_end_point must say (RFC 5929), by openssl; ed_signed has none.
for pair in p256:sha256 p384:sha384 rsa:sha256 sha512:sha512 sha1:sha256 pss:sha384; do
    name=${pair%:*}
    echo "$name $(openssl x509 -in "$name.pem" -outform DER | openssl dgst "-${pair#*:}" -r | cut -d' ' -f1)"
done >end_points
