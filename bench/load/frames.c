/* Client frames, masked once: a frame is copied and only the digits of its number are masked anew. The mask is drawn once a frame. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "load.h"

static size_t header_write(uint8_t *header, size_t payload) {
    size_t size = 2;
    header[0] = 0x81; /* a whole text message */
    if (payload < 126) {
        header[1] = 0x80 | (uint8_t)payload;
    } else if (payload < 65536) {
        header[1] = 0x80 | 126;
        header[2] = (uint8_t)(payload >> 8);
        header[3] = (uint8_t)payload;
        size = 4;
    } else {
        die("a message of %zu bytes is more than the load generator sends", payload);
    }
    return size;
}

void frame_build(struct frame *frame, const char *payload) {
    size_t size = strlen(payload);
    const char *run = strchr(payload, '#');
    frame->width = run ? (unsigned)strspn(run, "#") : 0;
    frame->bytes = allocate(size + 8, 1);
    size_t head = header_write(frame->bytes, size);
    if (getrandom(frame->mask, 4, 0) != 4)
        die_errno("getrandom");
    memcpy(frame->bytes + head, frame->mask, 4);
    head += 4;
    for (size_t at = 0; at < size; at++)
        frame->bytes[head + at] = (uint8_t)payload[at] ^ frame->mask[at & 3];
    frame->size = head + size;
    frame->digits = run ? head + (size_t)(run - payload) : 0;
    /* Digits are masked by their place in the frame from here on, so the mask is turned to where the payload begins. */
    uint8_t turned[4];
    for (size_t at = 0; at < 4; at++)
        turned[(head + at) & 3] = frame->mask[at];
    memcpy(frame->mask, turned, 4);
}

const char *id_prefix(void) {
    static char prefix[16];
    uint32_t drawn;
    if (!prefix[0]) {
        if (getrandom(&drawn, sizeof drawn, 0) != sizeof drawn)
            die_errno("getrandom");
        snprintf(prefix, sizeof prefix, "b%08x-", drawn);
    }
    return prefix;
}

void frame_build_echo(struct frame *frame, unsigned number, unsigned text) {
    char *payload = allocate(text + 200, 1);
    char *filling = allocate(text + 1, 1);
    memset(filling, 'x', text);
    snprintf(payload, text + 200, "{\"id\":\"%s%05u-##########\",\"function\":\"echo\",\"args\":{\"text\":\"%s\"},\"events\":\"final\"}", id_prefix(),
             number, filling);
    frame_build(frame, payload);
    free(filling);
    free(payload);
}

void frame_build_mail(struct frame *frame, unsigned number) {
    char payload[300];
    snprintf(payload, sizeof payload,
             "{\"id\":\"%s%05u-##########\",\"function\":\"send_mail\",\"args\":{\"from\":\"bench@example.org\","
             "\"to\":\"user@example.org\",\"subject\":\"bench\",\"contents\":\"hello\"},\"events\":\"final\"}",
             id_prefix(), number);
    frame_build(frame, payload);
}

void frame_patch(const struct frame *frame, uint8_t *copy, uint64_t number) {
    for (size_t at = frame->digits + frame->width; at-- > frame->digits; number /= 10)
        copy[at] = (uint8_t)('0' + number % 10) ^ frame->mask[at & 3];
}

void frame_free(struct frame *frame) {
    free(frame->bytes);
    frame->bytes = NULL;
}
