/* What a reply says: its id, its event. Found by searching, since a full parse would cost more than the server spends; the texts sent hold no quotes. */

#define _GNU_SOURCE
#include <string.h>

#include "load.h"

/* The first character of the value after `key`; NULL where the key is not there. */
static const char *value_after(const char *text, size_t size, const char *key) {
    size_t length = strlen(key);
    const char *found = memmem(text, size, key, length), *end = text + size;
    if (!found)
        return NULL;
    found += length;
    while (found < end && (*found == ' ' || *found == ':'))
        found++;
    return found < end ? found : NULL;
}

static const char *digits_read(const char *at, const char *end, uint64_t *number) {
    const char *start = at;
    for (*number = 0; at < end && *at >= '0' && *at <= '9'; at++)
        *number = *number * 10 + (uint64_t)(*at - '0');
    return at == start ? NULL : at;
}

bool reply_number(const char *text, size_t size, const char *key, uint64_t *number) {
    const char *at = value_after(text, size, key);
    return at && digits_read(at, text + size, number);
}

bool reply_read(struct reply *reply, const char *text, size_t size) {
    const char *end = text + size, *at = value_after(text, size, "\"id\"");
    const char *prefix = id_prefix();
    size_t length = strlen(prefix);
    uint64_t connection;
    if (!at || *at++ != '"' || (size_t)(end - at) < length || memcmp(at, prefix, length) != 0)
        return false;
    at = digits_read(at + length, end, &connection);
    if (!at || at == end || *at != '-' || !digits_read(at + 1, end, &reply->number))
        return false;
    reply->connection = (unsigned)connection;
    reply->event = value_after(text, size, "\"event\"");
    reply->event_size = 0;
    if (!reply->event || *reply->event++ != '"') {
        reply->event = NULL;
        return true;
    }
    const char *quote = memchr(reply->event, '"', (size_t)(end - reply->event));
    reply->event_size = quote ? (size_t)(quote - reply->event) : 0;
    return true;
}

bool reply_succeeded(const struct reply *reply) {
    return reply->event && reply->event_size == 9 && memcmp(reply->event, "succeeded", 9) == 0;
}
