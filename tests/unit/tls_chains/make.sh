#!/usr/bin/env bash
# Makes the file `chains` in this folder: chains of certificates, good and bad, and what openssl holds of each. It is
# kept in the repository and holds for a hundred years (the keys are no secrets).
#
# `certificate NAME` or `key NAME` is followed by it, in PEM form; `case NAME KEY TRUSTED SHOWN AS_SERVER AS_CLIENT`
# by nothing: names of certificates with ',' between, the leaf first, and openssl's verdicts (0: refused, 1:
# believed) of it as a server's and as a client's certificate. Level 2 is that of Debian.
set -euo pipefail
keys=$(dirname "$(realpath "$0")")
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
now=20260101000000Z
later=21260101000000Z
serial=$((0x1000))

cat >ca.cnf <<CNF
[ca]
default_ca = own
[own]
new_certs_dir = .
database = index
serial = serial
policy = any
unique_subject = no
email_in_dn = yes
copy_extensions = none
[any]
commonName = optional
organizationName = optional
emailAddress = optional
[req]
distinguished_name = name
[name]
CNF
: >index
key() { # NAME KIND
    # Those of RSA take long to make.
    [ ! -e "$keys/$1.key" ] || cp "$keys/$1.key" .
    [ ! -e "$1.key" ] || return 0
    case $2 in
    rsa*) openssl genrsa -traditional "${2#rsa}" 2>/dev/null ;;
    pss) openssl genpkey -algorithm rsa-pss -pkeyopt rsa_keygen_bits:2048 2>/dev/null ;;
    ed25519) openssl genpkey -algorithm ed25519 ;;
    *) openssl ecparam -name "$2" -genkey -noout ;;
    esac >"$1.key"
}
# sign NAME KEY ISSUER SUBJECT EXTENSIONS [OPTIONS OF ca ...]: "." as the issuer is the same name and key
sign() {
    local name=$1 key=$2 issuer=$3 subject=$4 extensions=$5
    shift 5
    openssl req -new -utf8 -config ca.cnf -key "$key.key" -subj "$subject" -out request ${request_options:-}
    printf '%b' "$extensions" >extensions
    printf '%X\n' $((serial++)) >serial
    [ -z "${own_serial:-}" ] || echo "$own_serial" >serial
    local signer=(-cert "$issuer.crt" -keyfile "${signer_key:-$issuer}.key")
    [ "$issuer" != . ] || signer=(-selfsign -keyfile "$key.key")
    openssl ca -batch -notext -config ca.cnf -md "${md:-sha256}" "${signer[@]}" -in request -out "$name.crt" \
        -startdate "${from:-$now}" -enddate "${to:-$later}" -extfile extensions "$@" 2>log ||
        { echo "$name:" >&2; cat log >&2; exit 1; }
}
ids='subjectKeyIdentifier=hash\nauthorityKeyIdentifier=keyid\n'
ca="basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign,cRLSign\n$ids"
both='extendedKeyUsage=serverAuth,clientAuth\n'
leaf="basicConstraints=CA:FALSE\n$both"'subjectAltName=DNS:db.example.com\n'"$ids"
subject=/CN=alice

for one in leaf root mid low other; do key $one prime256v1; done
authority() { sign "$1" "${2:-$1}" "${3:-.}" "${4:-/CN=$1}" "${5:-$ca}"; }
# case_of NAME TRUSTED SHOWN...: certificates by their names; the key is the leaf's own
case_of() {
    local name=$1 trusted=$2
    shift 2
    cat $(printf '%s.crt ' $trusted) >"$name.ca"
    cat $(printf '%s.crt ' "$@") >"$name.pem"
    echo "$name ${leaf_key:-leaf} ${trusted// /,} $(IFS=,; echo "$*")" >>cases
}
one_leaf() { # NAME EXTENSIONS: of the root itself
    sign "$1" "${leaf_key:-leaf}" root "$subject" "$2"
    case_of "$1" root "$1"
}
: >cases
authority root
authority other
authority mid mid root
authority low low mid

# ---- paths ----
one_leaf plain "$leaf"
sign of_mid leaf mid "$subject" "$leaf"
sign of_low leaf low "$subject" "$leaf"
case_of between root of_mid mid
case_of between_alone root of_mid
case_of two_between root of_low low mid
case_of wrong_order root of_low mid low
case_of root_in_the_middle root of_mid root mid
case_of root_along root of_mid mid root
case_of upper_missing root of_low low
case_of lower_missing root of_low mid
case_of root_missing mid of_mid
case_of root_and_mid_trusted "root mid" of_mid
case_of root_and_mid_trusted_both_shown "mid root" of_mid mid root
case_of leaf_twice root of_mid of_mid mid
case_of mid_twice root of_mid mid mid
case_of foreign_along root of_mid mid other
case_of foreign_first root of_mid other mid
case_of other_trusted other of_mid mid
authority cross root other /CN=root
case_of cross_on_top root of_mid mid cross
case_of cross_used other of_mid mid cross
case_of cross_below root of_mid cross mid
key fake prime256v1
authority fake_mid fake . /CN=mid
case_of fake_between root of_mid fake_mid
# The same key identifier as the true one's.
key_id=$(openssl x509 -in mid.crt -noout -ext subjectKeyIdentifier | tail -1 | tr -d ' :')
authority fake_same fake . /CN=mid "basicConstraints=critical,CA:TRUE\nsubjectKeyIdentifier=$key_id\n"
signer_key=fake sign of_fake leaf fake_same "$subject" "$leaf"
case_of wrong_signature root of_fake mid
case_of fake_of_the_same_id root of_fake fake_same
case_of fake_beside_the_true root of_mid fake_same mid
case_of fake_instead_of_the_true root of_mid fake_same
broken() { # NAME FROM: another last byte of the signature
    openssl x509 -in "$2.crt" -outform DER -out der
    local bytes=$(stat -c %s der) last
    last=$(tail -c 1 der | od -An -tu1)
    { head -c $((bytes - 1)) der; printf "\\x$(printf %x $(((last + 1) % 256)))"; } | openssl x509 -inform DER -out "$1.crt"
}
broken wrong plain
case_of wrong_signature_of_leaf root wrong
broken stolen mid
case_of wrong_signature_of_between root of_mid stolen
case_of good_and_wrong_between root of_mid mid stolen

# ---- who may sign ----
sign selfish leaf . /CN=selfish "basicConstraints=CA:FALSE\n$both"
case_of itself_trusted selfish selfish
leaf_key=other signer_key=leaf sign by_leaf other selfish "$subject" "$both"
leaf_key=other case_of by_trusted_leaf selfish by_leaf
leaf_key=other case_of by_trusted_leaf_shown selfish by_leaf selfish
sign plain_self leaf . /CN=plain 'nsComment=a\n'
case_of itself_trusted_without_limits plain_self plain_self
for one in 'no_ca:basicConstraints=CA:FALSE' 'no_limits:nsComment=a' 'no_sign:basicConstraints=CA:TRUE\nkeyUsage=digitalSignature' \
    'sign_only:keyUsage=keyCertSign' 'bare_ca:basicConstraints=CA:TRUE' \
    'for_servers:basicConstraints=CA:TRUE\nextendedKeyUsage=serverAuth' 'for_clients:basicConstraints=CA:TRUE\nextendedKeyUsage=clientAuth' \
    'for_mail:basicConstraints=CA:TRUE\nextendedKeyUsage=emailProtection'; do
    name=${one%%:*}
    key "$name" prime256v1
    authority "$name" "$name" root "/CN=$name" "${one#*:}\n$ids"
    sign "of_$name" leaf "$name" "$subject" "$leaf"
    case_of "between_$name" root "of_$name" "$name"
    authority "root_$name" "$name" . "/CN=$name" "${one#*:}\n$ids"
    case_of "root_$name" "root_$name" "of_$name"
done
for limit in 0 1; do
    authority "short$limit" root . /CN=root "basicConstraints=critical,CA:TRUE,pathlen:$limit\nsubjectKeyIdentifier=hash\n"
    case_of "root_length_$limit" "short$limit" plain
    case_of "root_length_${limit}_between" "short$limit" of_mid mid
    case_of "root_length_${limit}_two_between" "short$limit" of_low low mid
    authority "mid_short$limit" mid root /CN=mid "basicConstraints=critical,CA:TRUE,pathlen:$limit\nkeyUsage=keyCertSign\n$ids"
    case_of "mid_length_$limit" root of_mid "mid_short$limit"
    case_of "mid_length_${limit}_two" root of_low low "mid_short$limit"
done

# ---- dates ----
from=20200101000000Z to=20210101000000Z one_leaf leaf_expired "$leaf"
from=21200101000000Z one_leaf leaf_early "$leaf"
from=20200101000000Z to=20210101000000Z authority mid_old mid root /CN=mid
case_of between_expired root of_mid mid_old
from=21200101000000Z authority mid_early mid root /CN=mid
case_of between_early root of_mid mid_early
from=19500101000000Z to=22000101000000Z one_leaf dates_far "$leaf"
to=99991231235959Z one_leaf dates_without_end "$leaf"
to=20490101000000Z authority until_2049 root . /CN=root
case_of root_until_2049 until_2049 plain

# ---- hashes and keys ----
key big rsa2048
authority big
for hash in md5 sha1; do # of an RSA key: there is no ECDSA with MD5
    md=$hash sign "rsa_$hash" leaf big "$subject" "$leaf"
    case_of "leaf_rsa_$hash" big "rsa_$hash"
    md=$hash authority "mid_rsa_$hash" mid big /CN=mid
    case_of "between_rsa_$hash" big of_mid "mid_rsa_$hash"
done
for hash in sha1 sha224 sha384 sha512; do
    md=$hash one_leaf "leaf_$hash" "$leaf"
    md=$hash authority "mid_$hash" mid root /CN=mid
    case_of "between_$hash" root of_mid "mid_$hash"
done
md=sha1 authority root_old root . /CN=root
case_of root_sha1 root_old plain
for bits in 1024 2048 4096; do
    key "rsa$bits" "rsa$bits"
    leaf_key=rsa$bits one_leaf "leaf_rsa$bits" "$leaf"
    authority "rsa$bits"
    sign "of_rsa$bits" leaf "rsa$bits" "$subject" "$leaf"
    case_of "root_rsa$bits" "rsa$bits" "of_rsa$bits"
    authority "mid_rsa$bits" "rsa$bits" root "/CN=rsa$bits"
    case_of "between_rsa$bits" root "of_rsa$bits" "mid_rsa$bits"
done
key rsa1536 rsa1536
key rsa8192 rsa8192
leaf_key=rsa1536 one_leaf leaf_rsa1536 "$leaf"
authority rsa8192
sign of_rsa8192 leaf rsa8192 "$subject" "$leaf"
case_of root_rsa8192 rsa8192 of_rsa8192
for curve in secp384r1 secp521r1 prime192v1 ed25519; do
    hash=sha512
    [ $curve != ed25519 ] || hash=null
    key $curve $curve
    leaf_key=$curve one_leaf "leaf_$curve" "$leaf"
    md=$hash authority $curve
    md=$hash sign "of_$curve" leaf $curve "$subject" "$leaf"
    case_of "root_$curve" $curve "of_$curve"
done
for hash in sha1 sha256 sha384; do
    md=$hash sign "pss_$hash" leaf big "$subject" "$leaf" -sigopt rsa_padding_mode:pss
    case_of "signed_pss_$hash" big "pss_$hash"
done
key pss pss
leaf_key=pss one_leaf leaf_pss_key "$leaf"

# ---- uses ----
one_leaf use_none 'subjectAltName=DNS:db.example.com\n'
for use in serverAuth clientAuth anyExtendedKeyUsage codeSigning; do
    one_leaf "use_$use" "extendedKeyUsage=$use\n"
    one_leaf "use_critical_$use" "extendedKeyUsage=critical,$use\n"
done
for use in digitalSignature keyEncipherment keyAgreement nonRepudiation keyCertSign; do
    one_leaf "key_$use" "keyUsage=critical,$use\n$both"
done

# ---- extensions, names ----
one_leaf critical_unknown "1.2.3.4.5=critical,ASN1:UTF8String:x\n$both"
authority mid_critical mid root /CN=mid "${ca}1.2.3.4.5=critical,ASN1:UTF8String:x\n"
case_of between_critical_unknown root of_mid mid_critical
one_leaf plain_unknown "1.2.3.4.5=ASN1:UTF8String:x\n$both"
one_leaf names_of_all_kinds "$both"'subjectAltName=DNS:db.example.com,DNS:*.example.com,IP:192.0.2.1,IP:2001:db8::1,email:a@b.c,URI:http://a.b/\n'
one_leaf name_idn "$both"'subjectAltName=DNS:xn--bcher-kva.example\n'
subject='/O=B\xC3\xBCcher/CN=J\xC3\xBCrgen'
one_leaf name_utf8 "$both"
for kind in nombstr pkix default; do
    printf '[req]\ndistinguished_name=name\nstring_mask=%s\n[name]\n' $kind >"$kind.cnf"
    openssl req -new -config $kind.cnf -utf8 -key leaf.key -subj "$(printf "$subject")" -out "$kind.csr"
    openssl x509 -req -in "$kind.csr" -CA root.crt -CAkey root.key -set_serial 7 -days 30000 -out "name_$kind.crt" \
        -extfile <(printf "$both") 2>/dev/null
    case_of "name_$kind" root "name_$kind"
done
subject=/CN=alice
own_serial=7FFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFF one_leaf serial_long "$leaf"
openssl req -new -config ca.cnf -key leaf.key -subj /CN=alice -out plain.csr
openssl x509 -req -in plain.csr -CA root.crt -CAkey root.key -set_serial -5 -days 30000 -extfile <(printf "$both") \
    -out negative.crt 2>/dev/null
case_of serial_negative root negative
openssl x509 -req -in plain.csr -CA root.crt -CAkey root.key -set_serial 0 -days 30000 -extfile <(printf "$both") \
    -out zero.crt 2>/dev/null
case_of serial_zero root zero
openssl x509 -req -in plain.csr -CA root.crt -CAkey root.key -set_serial 9 -days 30000 -out version1.crt 2>/dev/null
case_of version_1 root version1
openssl req -new -config ca.cnf -key other.key -subj /CN=old -out old.csr
openssl x509 -req -in old.csr -signkey other.key -set_serial 9 -days 30000 -out old.crt 2>/dev/null
signer_key=other sign of_old leaf old "$subject" "$both"
case_of version_1_root old of_old
openssl x509 -req -in old.csr -CA root.crt -CAkey root.key -set_serial 9 -days 30000 -out old_mid.crt 2>/dev/null
case_of version_1_between root of_old old_mid

# ---- names that an authority may give ----
# limited NAME CONSTRAINTS LEAF: by the authority between, by the root, and by the root with one between
limited() {
    subject=${4:-/CN=alice}
    authority "mid_$1" mid root /CN=mid "${ca}nameConstraints=critical,$2\n"
    sign "leaf_$1" leaf mid "$subject" "$both$3"
    case_of "limit_$1" root "leaf_$1" "mid_$1"
    authority "root_$1" root . /CN=root "${ca}nameConstraints=critical,$2\n"
    sign "direct_$1" leaf root "$subject" "$both$3"
    case_of "limit_of_root_$1" "root_$1" "direct_$1"
    case_of "limit_from_above_$1" "root_$1" "leaf_$1" mid
    subject=/CN=alice
}
dns='permitted;DNS:example.com'
limited dns_good $dns 'subjectAltName=DNS:db.example.com\n'
limited dns_same $dns 'subjectAltName=DNS:EXAMPLE.com\n'
limited dns_bad $dns 'subjectAltName=DNS:db.example.com,DNS:example.org\n'
limited dns_suffix $dns 'subjectAltName=DNS:badexample.com\n'
limited dns_excluded 'excluded;DNS:example.com' 'subjectAltName=DNS:db.example.com\n'
limited dns_not_excluded 'excluded;DNS:example.com' 'subjectAltName=DNS:db.example.org\n'
limited dns_without_name $dns 'nsComment=a\n'
limited common_name_bad $dns 'nsComment=a\n' /CN=db.example.org
limited common_name_good $dns 'nsComment=a\n' /CN=db.example.com
limited common_name_beside $dns 'subjectAltName=DNS:db.example.com\n' /CN=db.example.org
limited ip_good 'permitted;IP:192.0.2.0/255.255.255.0' 'subjectAltName=IP:192.0.2.7\n'
limited ip_bad 'permitted;IP:192.0.2.0/255.255.255.0' 'subjectAltName=IP:192.0.3.7\n'
limited ip_excluded 'excluded;IP:0.0.0.0/0.0.0.0' 'subjectAltName=IP:192.0.3.7\n'
limited ip_other_kind 'permitted;IP:192.0.2.0/255.255.255.0' 'subjectAltName=IP:2001:db8::1\n'
limited mail_good 'permitted;email:example.com' 'subjectAltName=email:a@example.com\n'
limited mail_bad 'permitted;email:example.com' 'subjectAltName=email:a@example.org\n'
limited mail_in_subject 'permitted;email:example.com' 'nsComment=a\n' /CN=alice/emailAddress=a@example.org
limited uri 'permitted;URI:.example.com' 'subjectAltName=URI:http://a.example.com/\n'
limited uri_bad 'permitted;URI:.example.com' 'subjectAltName=URI:http://a.example.org/\n'
limited dir_good 'permitted;dirName:dir\n[dir]\nO=staff' '' /O=staff/CN=alice
limited dir_bad 'permitted;dirName:dir\n[dir]\nO=staff' '' /O=guests/CN=alice

# ---- what openssl says ----
{
    used=$(cut -d' ' -f3,4 cases | tr ', ' '\n\n' | sort -u)
    for one in $used; do
        echo "certificate $one"
        cat "$one.crt"
    done
    for one in $(cut -d' ' -f2 cases | sort -u); do
        echo "key $one"
        cat "$one.key"
    done
    while read -r name key trusted shown; do
        verdict=
        for purpose in sslserver sslclient; do
            openssl verify -auth_level 2 -purpose $purpose -no-CApath -no-CAstore -CAfile "$name.ca" \
                -untrusted "$name.pem" "${shown%%,*}.crt" >/dev/null 2>&1 && verdict+=" 1" || verdict+=" 0"
        done
        echo "case $name $key $trusted $shown$verdict"
    done <cases
} >chains
mv chains "$keys/"
