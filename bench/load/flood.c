/* `flood`: N send_mail tasks over C connections, all submitted at once; timed from the first byte sent until the last is final. */

#include <stdio.h>
#include <stdlib.h>

#include "load.h"

#define LIMIT_SECONDS 120

struct flood {
    unsigned connections, tasks;
    bool *done; /* by number; a task's number tells its connection */
    uint64_t finished;
    uint64_t start, last;
    struct histogram latency;
    struct trouble trouble;
};

static void on_message(void *state, struct connection *connection, const char *text, size_t size) {
    struct flood *run = state;
    struct reply reply;
    if (!reply_read(&reply, text, size) || reply.number >= run->tasks || reply.number % run->connections != connection->number) {
        trouble_error(&run->trouble, "this answers nothing that was sent here", text, size);
    } else if (!reply_succeeded(&reply)) {
        trouble_error(&run->trouble, "a mail was not sent", text, size);
    } else if (run->done[reply.number]) {
        trouble_duplicate(&run->trouble, text, size);
    } else {
        run->done[reply.number] = true;
        run->finished++;
        run->last = connection->received_at;
        histogram_add(&run->latency, connection->received_at - run->start);
    }
}

static void submit_all(struct flood *run, struct loop *loop) {
    struct frame *frames = allocate(run->connections, sizeof *frames);
    for (unsigned number = 0; number < run->connections; number++)
        frame_build_mail(&frames[number], number);
    for (unsigned number = 0; number < run->tasks; number++)
        connection_put(&loop->connections[number % run->connections], &frames[number % run->connections], number);
    run->start = run->last = now_ns();
    loop_flush(loop);
    for (unsigned number = 0; number < run->connections; number++)
        frame_free(&frames[number]);
    free(frames);
}

int run_flood(const struct options *options) {
    struct flood *run = allocate(1, sizeof *run);
    struct loop loop;
    run->connections = options->connections;
    run->tasks = options->tasks;
    run->done = allocate(run->tasks, sizeof *run->done);
    loop_open(&loop, options, on_message, run);
    submit_all(run, &loop);
    uint64_t end = run->start + LIMIT_SECONDS * SECOND;
    while (run->finished < run->tasks && now_ns() < end && !run->trouble.errors)
        loop_turn(&loop, 100);
    if (run->finished < run->tasks && !run->trouble.errors)
        trouble_error(&run->trouble, "replies are missing at the end", "", 0);
    printf("{\"mode\": \"flood\", \"connections\": %u, \"tasks\": %u, \"finished\": %llu, \"seconds\": %.6f, \"errors\": %llu, \"duplicates\": %llu, \"latency_us\": ",
           run->connections, run->tasks, (unsigned long long)run->finished, (double)(run->last - run->start) / 1e9,
           (unsigned long long)run->trouble.errors, (unsigned long long)run->trouble.duplicates);
    histogram_print(&run->latency);
    printf("}\n");
    bool failed = run->trouble.errors || run->trouble.duplicates;
    loop_close(&loop);
    free(run->done);
    free(run);
    return failed;
}
