/* json_base64 - keys and values as JSON carries them (RFC 4648 §4; §5 is read too). From json_in.c, json_out.c. */
#include "common/err.h"
#include "gatewayd/json.h"

static int value_of(uint8_t b)
{
    if (b >= 'A' && b <= 'Z') {
        return b - 'A';
    }
    if (b >= 'a' && b <= 'z') {
        return b - 'a' + 26;
    }
    if (b >= '0' && b <= '9') {
        return b - '0' + 52;
    }
    return b == '+' || b == '-' ? 62 : b == '/' || b == '_' ? 63 : -1;
}

int json_base64_decode(struct slice text, struct buf *out)
{
    size_t before = out->len, digits = 0, pads = 0;
    uint32_t bits = 0;
    bool standard = false, safe = false; /* the two alphabets do not mix */
    buf_reserve(out, text.len / 4 * 3 + 3);
    for (size_t i = 0; i < text.len; i++) {
        uint8_t b = text.data[i];
        if (b == '\r' || b == '\n') {
            continue;
        }
        if (b == '=') {
            pads++;
            continue;
        }
        int v = value_of(b);
        standard |= b == '+' || b == '/';
        safe |= b == '-' || b == '_';
        if (v < 0 || pads > 0 || (standard && safe)) {
            goto fail;
        }
        bits = bits << 6 | (uint32_t)v;
        if (++digits % 4 == 0) {
            uint8_t three[3] = {(uint8_t)(bits >> 16), (uint8_t)(bits >> 8), (uint8_t)bits};
            buf_add(out, three, 3);
        }
    }
    /* Padding is whole or not there. */
    size_t rest = digits % 4;
    if (rest == 1 || (pads > 0 && rest + pads != 4) || (rest == 0 && pads > 0)) {
        goto fail;
    }
    if (rest >= 2) {
        buf_add_byte(out, (uint8_t)(rest == 2 ? bits >> 4 : bits >> 10));
    }
    if (rest == 3) {
        buf_add_byte(out, (uint8_t)(bits >> 2));
    }
    return OK;
fail:
    out->len = before;
    return E_INVALID;
}

void json_base64_encode(struct slice bytes, struct buf *out)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    uint8_t *to = buf_extend(out, (bytes.len + 2) / 3 * 4);
    size_t i = 0;
    for (; i + 3 <= bytes.len; i += 3, to += 4) {
        uint32_t bits = (uint32_t)bytes.data[i] << 16 | (uint32_t)bytes.data[i + 1] << 8 | bytes.data[i + 2];
        to[0] = (uint8_t)digits[bits >> 18];
        to[1] = (uint8_t)digits[bits >> 12 & 63];
        to[2] = (uint8_t)digits[bits >> 6 & 63];
        to[3] = (uint8_t)digits[bits & 63];
    }
    if (i < bytes.len) {
        bool two = bytes.len - i == 2;
        uint32_t bits = (uint32_t)bytes.data[i] << 16 | (two ? (uint32_t)bytes.data[i + 1] << 8 : 0);
        to[0] = (uint8_t)digits[bits >> 18];
        to[1] = (uint8_t)digits[bits >> 12 & 63];
        to[2] = two ? (uint8_t)digits[bits >> 6 & 63] : '=';
        to[3] = '=';
    }
}
