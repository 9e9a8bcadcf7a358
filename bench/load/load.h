/* What the parts of the load generator share: options, connections, frames, the loop, the histogram, and one function for each mode. */

#ifndef LOAD_H
#define LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SECOND 1000000000ull
#define MILLISECOND 1000000ull

struct options {
    const char *mode;
    const char *host;
    const char *port;
    const char *path;
    unsigned connections;
    unsigned outstanding; /* tasks in flight on each connection */
    unsigned tasks;       /* how many mails `flood` submits */
    unsigned text;        /* bytes of text in an echo task */
    unsigned every;       /* milliseconds between two messages of `ping` and `trickle` */
    double warmup;        /* seconds */
    double seconds;       /* 0: until stdin closes (`ping`, `trickle`) */
};

/* ---- frames.c: client frames made once, so that only digits are patched into a copy ---- */

struct frame {
    uint8_t *bytes;
    size_t size;
    size_t digits;    /* where the number's digits stand; `width` of them */
    unsigned width;   /* 0: the frame has no number */
    uint8_t mask[4];
};

/* `payload` holds at most one run of '#', which becomes the number's digits. */
void frame_build(struct frame *frame, const char *payload);
/* What all ids of this run begin with: drawn anew each run, since a server that knows an id does not run its task again. */
const char *id_prefix(void);
/* The echo task of connection `number`, with `text` bytes of text. */
void frame_build_echo(struct frame *frame, unsigned number, unsigned text);
void frame_build_mail(struct frame *frame, unsigned number);
/* Patches `number` into a copy of the frame. */
void frame_patch(const struct frame *frame, uint8_t *copy, uint64_t number);
void frame_free(struct frame *frame);

/* ---- connection.c: one socket, its handshake, and the frames that come in ---- */

struct bytes {
    uint8_t *data;
    size_t size;
    size_t room;
};

struct connection {
    int fd;
    unsigned number;
    uint64_t received_at; /* when the bytes came in that are being handled now */
    struct bytes in;
    struct bytes out;
    bool blocked; /* the socket takes no more for now: EPOLLOUT is awaited */
};

typedef void (*message_handler)(void *state, struct connection *connection, const char *text, size_t size);

void connection_open(struct connection *connection, unsigned number, const struct options *options);
void connection_put(struct connection *connection, const struct frame *frame, uint64_t number);
void connection_close(struct connection *connection);

/* ---- loop.c: one epoll over all connections, and stdin or a timer where a mode asks for them ---- */

struct loop {
    int epoll;
    unsigned count;
    struct connection *connections;
    message_handler handler;
    void *state;
    bool input_closed; /* stdin came to its end */
    uint64_t ticks;    /* expirations of the timer that were not taken yet */
    int timer;
};

void loop_open(struct loop *loop, const struct options *options, message_handler handler, void *state);
void loop_watch_input(struct loop *loop);
void loop_start_timer(struct loop *loop, uint64_t period_ns);
/* Waits at most `timeout_ms`, reads what came in, hands out whole messages, and writes once to each connection. */
void loop_turn(struct loop *loop, int timeout_ms);
/* Writes what was put outside of a handler. */
void loop_flush(struct loop *loop);
void loop_close(struct loop *loop);

/* ---- replies.c: what the server said, found without parsing it as a whole ---- */

struct reply {
    unsigned connection;
    uint64_t number;
    const char *event; /* the event's name without its quotes; NULL where there is none */
    size_t event_size;
};

/* Whether the message carries an id of ours; fills `reply`. */
bool reply_read(struct reply *reply, const char *text, size_t size);
bool reply_succeeded(const struct reply *reply);
/* The number after `"key":`; false where there is none. */
bool reply_number(const char *text, size_t size, const char *key, uint64_t *number);

/* ---- histogram.c: latencies, to 1.6 % ---- */

#define HISTOGRAM_BUCKETS (64 * 60)

struct histogram {
    uint64_t counts[HISTOGRAM_BUCKETS];
    uint64_t total;
    uint64_t max;
};

void histogram_add(struct histogram *histogram, uint64_t ns);
/* In nanoseconds; 0 where nothing was added. `share` from 0 to 1. */
uint64_t histogram_at(const struct histogram *histogram, double share);
/* As a JSON object of microseconds, without a line ending. */
void histogram_print(const struct histogram *histogram);

/* ---- what went wrong: the first is printed, all are counted (load.c) ---- */

struct trouble {
    uint64_t errors;
    uint64_t duplicates;
};

void trouble_error(struct trouble *trouble, const char *what, const char *text, size_t size);
void trouble_duplicate(struct trouble *trouble, const char *text, size_t size);

uint64_t now_ns(void);
uint64_t own_cpu_ns(void);
/* Ends the program with one line on stderr. */
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* As `die`, with errno's text. */
_Noreturn void die_errno(const char *what);
void *allocate(size_t count, size_t size);

/* ---- the modes; each returns the exit status ---- */

int run_closed(const struct options *options, bool echo); /* closed.c: `tasks` and `echo` */
int run_paced(const struct options *options, bool ping);  /* paced.c: `ping` and `trickle` */
int run_flood(const struct options *options);             /* flood.c */
int run_idle(const struct options *options);              /* idle.c */

#endif
