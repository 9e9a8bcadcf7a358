/* `ping` and `trickle`: one small message every X ms, whether or not the last was answered; each latency is kept and printed. */

#include <stdio.h>
#include <stdlib.h>

#include "load.h"

#define MOST 1000000
#define PING_BASE 1000000 /* pings are numbered from here: a JSON number has no leading zeros, and the digits patched in may */
#define DRAIN_SECONDS 10

struct sample {
    uint64_t sent_at;
    uint64_t latency; /* 0: not answered yet */
};

struct paced {
    bool ping;
    struct sample *samples;
    uint64_t sent, finished;
    struct trouble trouble;
};

static bool number_of(const struct paced *run, const char *text, size_t size, uint64_t *number) {
    struct reply reply;
    if (run->ping) {
        bool found = reply_number(text, size, "\"pong\"", number) && *number >= PING_BASE;
        *number -= found ? PING_BASE : 0;
        return found;
    }
    if (!reply_read(&reply, text, size) || !reply_succeeded(&reply))
        return false;
    *number = reply.number;
    return true;
}

static void on_message(void *state, struct connection *connection, const char *text, size_t size) {
    struct paced *run = state;
    uint64_t number;
    if (!number_of(run, text, size, &number) || number >= run->sent) {
        trouble_error(&run->trouble, "not what was asked for", text, size);
    } else if (run->samples[number].latency) {
        trouble_duplicate(&run->trouble, text, size);
    } else {
        run->samples[number].latency = connection->received_at - run->samples[number].sent_at;
        run->finished++;
    }
}

/* One message, even where several ticks were missed: a client that woke up late must not charge the server for it. */
static void send_due(struct paced *run, struct loop *loop, const struct frame *frame) {
    if (!loop->ticks || run->sent == MOST)
        return;
    loop->ticks = 0;
    run->samples[run->sent].sent_at = now_ns();
    connection_put(&loop->connections[0], frame, run->sent++);
    loop_flush(loop);
}

static void print_result(const struct options *options, struct paced *run) {
    struct histogram *latency = allocate(1, sizeof *latency);
    for (uint64_t at = 0; at < run->sent; at++)
        if (run->samples[at].latency)
            histogram_add(latency, run->samples[at].latency);
    printf("{\"mode\": \"%s\", \"every_ms\": %u, \"sent\": %llu, \"finished\": %llu, \"errors\": %llu, \"duplicates\": %llu, \"latency_us\": ",
           options->mode, options->every, (unsigned long long)run->sent, (unsigned long long)run->finished,
           (unsigned long long)run->trouble.errors, (unsigned long long)run->trouble.duplicates);
    histogram_print(latency);
    printf(", \"samples_us\": [");
    const char *comma = "";
    for (uint64_t at = 0; at < run->sent; at++)
        if (run->samples[at].latency) {
            printf("%s%.1f", comma, (double)run->samples[at].latency / 1e3);
            comma = ", ";
        }
    printf("]}\n");
    free(latency);
}

int run_paced(const struct options *options, bool ping) {
    struct paced *run = allocate(1, sizeof *run);
    struct frame frame;
    struct loop loop;
    run->ping = ping;
    run->samples = allocate(MOST, sizeof *run->samples); /* pages that are not touched cost nothing */
    if (ping)
        frame_build(&frame, "{\"ping\":1######}");
    else
        frame_build_echo(&frame, 0, options->text);
    loop_open(&loop, options, on_message, run);
    if (options->seconds == 0)
        loop_watch_input(&loop);
    loop_start_timer(&loop, options->every * MILLISECOND);
    uint64_t end = options->seconds > 0 ? now_ns() + (uint64_t)(options->seconds * 1e9) : UINT64_MAX;
    while (!loop.input_closed && now_ns() < end && !run->trouble.errors) {
        loop_turn(&loop, 100);
        send_due(run, &loop, &frame);
    }
    for (end = now_ns() + DRAIN_SECONDS * SECOND; run->finished < run->sent && now_ns() < end && !run->trouble.errors;)
        loop_turn(&loop, 100);
    if (run->finished < run->sent)
        trouble_error(&run->trouble, "replies are missing at the end", "", 0);
    print_result(options, run);
    bool failed = run->trouble.errors || run->trouble.duplicates;
    loop_close(&loop);
    frame_free(&frame);
    free(run->samples);
    free(run);
    return failed;
}
