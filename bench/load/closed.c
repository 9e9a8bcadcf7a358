/* `tasks` and `echo`: a closed loop. Each connection keeps M messages in flight, and each reply sends the next; a period is measured after a warm-up. */

#include <stdio.h>
#include <stdlib.h>

#include "load.h"

#define DRAIN_SECONDS 10
#define TAIL (SECOND / 5)

/* The load goes on for a moment after it was measured, so that both ends of the period are alike for whoever reads the server's CPU time. */
enum phase { WARMING, MEASURING, TAILING, DRAINING };

/* A place for one message in flight. Its numbers go up in steps of M, so a number tells its slot, and one that does not fit is a duplicate. */
struct slot {
    uint64_t number;
    uint64_t sent_at;
    bool waiting;
};

struct closed {
    const struct options *options;
    bool echo;
    enum phase phase;
    struct frame *frames; /* one a connection */
    struct slot *slots;   /* M a connection */
    uint64_t sent, finished, measured, in_flight;
    struct histogram latency;
    struct trouble trouble;
};

static void submit(struct closed *run, struct connection *connection, struct slot *slot, uint64_t now) {
    slot->sent_at = now;
    slot->waiting = true;
    run->sent++;
    run->in_flight++;
    connection_put(connection, &run->frames[connection->number], slot->number);
}

static void finished(struct closed *run, struct connection *connection, struct slot *slot) {
    slot->waiting = false;
    run->finished++;
    run->in_flight--;
    if (run->phase == MEASURING) {
        run->measured++;
        histogram_add(&run->latency, connection->received_at - slot->sent_at);
    }
    slot->number += run->options->outstanding;
    if (run->phase != DRAINING)
        submit(run, connection, slot, connection->received_at);
}

static void on_message(void *state, struct connection *connection, const char *text, size_t size) {
    struct closed *run = state;
    struct reply reply;
    if (!reply_read(&reply, text, size) || reply.connection != connection->number) {
        trouble_error(&run->trouble, "this answers nothing that was sent here", text, size);
        return;
    }
    unsigned outstanding = run->options->outstanding;
    struct slot *slot = &run->slots[(size_t)connection->number * outstanding + reply.number % outstanding];
    if (!run->echo && !reply_succeeded(&reply))
        trouble_error(&run->trouble, "a task did not succeed", text, size);
    else if (!slot->waiting || slot->number != reply.number)
        trouble_duplicate(&run->trouble, text, size);
    else
        finished(run, connection, slot);
}

static void prepare(struct closed *run, struct loop *loop) {
    const struct options *options = run->options;
    run->frames = allocate(options->connections, sizeof *run->frames);
    run->slots = allocate((size_t)options->connections * options->outstanding, sizeof *run->slots);
    for (unsigned number = 0; number < options->connections; number++) {
        frame_build_echo(&run->frames[number], number, options->text);
        for (unsigned at = 0; at < options->outstanding; at++) {
            struct slot *slot = &run->slots[(size_t)number * options->outstanding + at];
            slot->number = at;
            submit(run, &loop->connections[number], slot, now_ns());
        }
    }
    loop_flush(loop);
}

/* Turns the loop until `end`, or until something went wrong; returns when that was. */
static uint64_t turn_until(struct closed *run, struct loop *loop, uint64_t end) {
    uint64_t now = now_ns();
    while (now < end && !run->trouble.errors && !run->trouble.duplicates) {
        loop_turn(loop, 5);
        now = now_ns();
    }
    return now;
}

static void drain(struct closed *run, struct loop *loop) {
    uint64_t end = now_ns() + DRAIN_SECONDS * SECOND;
    run->phase = DRAINING;
    while (run->in_flight && now_ns() < end && !run->trouble.errors)
        loop_turn(loop, 5);
    if (run->in_flight && !run->trouble.errors)
        trouble_error(&run->trouble, "replies are missing at the end", "", 0);
}

static void print_result(struct closed *run, double seconds, double cpu_us) {
    double measured = run->measured ? (double)run->measured : 1.0;
    printf("{\"mode\": \"%s\", \"connections\": %u, \"outstanding\": %u, \"seconds\": %.6f, ", run->options->mode, run->options->connections,
           run->options->outstanding, seconds);
    printf("\"sent\": %llu, \"finished\": %llu, \"measured\": %llu, \"per_second\": %.1f, ", (unsigned long long)run->sent,
           (unsigned long long)run->finished, (unsigned long long)run->measured, (double)run->measured / seconds);
    printf("\"errors\": %llu, \"duplicates\": %llu, \"client_cpu_us\": %.2f, \"latency_us\": ", (unsigned long long)run->trouble.errors,
           (unsigned long long)run->trouble.duplicates, cpu_us / measured);
    histogram_print(&run->latency);
    printf("}\n");
}

int run_closed(const struct options *options, bool echo) {
    struct closed *run = allocate(1, sizeof *run);
    struct loop loop;
    run->options = options;
    run->echo = echo;
    loop_open(&loop, options, on_message, run);
    prepare(run, &loop);
    turn_until(run, &loop, now_ns() + (uint64_t)(options->warmup * 1e9));

    /* The two marks tell whoever reads stderr when to read the server's CPU time. */
    run->phase = MEASURING;
    fputs("measuring\n", stderr);
    uint64_t cpu = own_cpu_ns(), start = now_ns();
    uint64_t end = turn_until(run, &loop, start + (uint64_t)(options->seconds * 1e9));
    run->phase = TAILING;
    double cpu_us = (double)(own_cpu_ns() - cpu) / 1e3;
    fputs("measured\n", stderr);

    turn_until(run, &loop, end + TAIL);
    drain(run, &loop);
    print_result(run, (double)(end - start) / 1e9, cpu_us);
    bool failed = run->trouble.errors || run->trouble.duplicates;
    loop_close(&loop);
    for (unsigned number = 0; number < options->connections; number++)
        frame_free(&run->frames[number]);
    free(run->frames);
    free(run->slots);
    free(run);
    return failed;
}
