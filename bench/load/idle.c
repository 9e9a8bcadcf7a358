/* `idle`: opens K connections, says so, and holds them (answering the server's pings) until stdin closes. */

#include <stdio.h>

#include "load.h"

static void on_message(void *state, struct connection *connection, const char *text, size_t size) {
    (void)connection;
    trouble_error(state, "nothing was asked for", text, size);
}

int run_idle(const struct options *options) {
    struct trouble trouble = {0};
    struct loop loop;
    loop_open(&loop, options, on_message, &trouble);
    loop_watch_input(&loop);
    printf("{\"mode\": \"idle\", \"connections\": %u}\n", options->connections);
    fflush(stdout);
    while (!loop.input_closed && !trouble.errors)
        loop_turn(&loop, 1000);
    loop_close(&loop);
    return trouble.errors > 0;
}
