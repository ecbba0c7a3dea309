/* fuzz_certificate.c - names, key, hash and facts of a certificate from foreign bytes. */
#include "base/assert.h"
#include "crypto/certificate.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct certificate certificate = {.der = data, .bytes = bytes};
    uint8_t hash[CERTIFICATE_HASH_BYTES_MAX];
    struct certificate_facts facts;
    const uint8_t *key;
    size_t key_bytes;

    /* What is of a host has it among its names. */
    if (certificate_is_of_host(certificate, "db.example.com"))
        assert(certificate_has_name(certificate, "db.example.com"));
    if (certificate_is_of_host(certificate, "192.0.2.1"))
        assert(certificate_has_name(certificate, "192.0.2.1"));
    (void)certificate_is_of_host(certificate, "2001:db8::1");
    assert(certificate_end_point(certificate, hash) <= sizeof(hash));
    key = certificate_public_key(certificate, &key_bytes);
    if (key != NULL)
        assert(key > data && key + key_bytes <= data + bytes);
    if (certificate_read_facts(certificate, &facts)) {
        assert(facts.subject.data > data &&
               facts.subject.data + facts.subject.bytes <= data + bytes);
        /* Its own limits are as good as any. */
        if (facts.constraints.data != NULL)
            (void)certificate_fits_constraints(&facts, facts.constraints, true);
    }
    return 0;
}
