/* A WebSocket load generator that costs less than any server: one thread, one epoll, frames made beforehand.
 *
 * This file has the command line, and what all modes use; a mode is a file under load/. One JSON object goes to stdout,
 * marks and complaints to stderr; the exit status is 0 where nothing went wrong.
 */

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "load/load.h"

uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * SECOND + (uint64_t)now.tv_nsec;
}

uint64_t own_cpu_ns(void) {
    struct timespec spent;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &spent);
    return (uint64_t)spent.tv_sec * SECOND + (uint64_t)spent.tv_nsec;
}

void die(const char *format, ...) {
    va_list values;
    va_start(values, format);
    fputs("load: ", stderr);
    vfprintf(stderr, format, values);
    fputc('\n', stderr);
    va_end(values);
    exit(1);
}

void die_errno(const char *what) {
    die("%s: %s", what, strerror(errno));
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count, size);
    if (!memory)
        die("out of memory");
    return memory;
}

void trouble_error(struct trouble *trouble, const char *what, const char *text, size_t size) {
    if (!trouble->errors++)
        fprintf(stderr, "load: %s: %.*s\n", what, (int)(size < 1000 ? size : 1000), text);
}

void trouble_duplicate(struct trouble *trouble, const char *text, size_t size) {
    if (!trouble->duplicates++)
        fprintf(stderr, "load: answered twice: %.*s\n", (int)(size < 1000 ? size : 1000), text);
}

static const char usage[] =
    "usage: load tasks|echo|flood|ping|trickle|idle --port PORT [options]\n"
    "  --host HOST          default 127.0.0.1\n"
    "  --path PATH          default /ws\n"
    "  --connections N      default 50; 1 for ping and trickle\n"
    "  --outstanding M      in flight on each connection, default 1 (tasks, echo)\n"
    "  --text BYTES         of text in an echo task, default 100\n"
    "  --warmup SECONDS     default 0.5 (tasks, echo)\n"
    "  --seconds SECONDS    how long to measure, default 2; 0: until stdin closes (ping, trickle)\n"
    "  --every MS           default 20 (ping, trickle)\n"
    "  --tasks N            default 1000 (flood)\n";

static unsigned whole(const char *text, unsigned most) {
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    if (*end || end == text || errno || *text == '-' || value > most)
        die("%s is not a number from 0 to %u", text, most);
    return (unsigned)value;
}

static double real(const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (*end || end == text || !(value >= 0 && value <= 3600))
        die("%s is not a number of seconds", text);
    return value;
}

static void set(struct options *options, int option, const char *value) {
    switch (option) {
    case 'h': options->host = value; break;
    case 'p': options->port = value; break;
    case 'a': options->path = value; break;
    case 'c': options->connections = whole(value, 60000); break;
    case 'o': options->outstanding = whole(value, 2000); break;
    case 't': options->text = whole(value, 60000); break;
    case 'w': options->warmup = real(value); break;
    case 's': options->seconds = real(value); break;
    case 'e': options->every = whole(value, 60000); break;
    case 'n': options->tasks = whole(value, 1000000); break;
    default: fputs(usage, stderr); exit(2);
    }
}

static void read_options(struct options *options, int count, char **values) {
    static const struct option names[] = {
        {"host", required_argument, NULL, 'h'},    {"port", required_argument, NULL, 'p'},        {"path", required_argument, NULL, 'a'},
        {"connections", required_argument, NULL, 'c'}, {"outstanding", required_argument, NULL, 'o'}, {"text", required_argument, NULL, 't'},
        {"warmup", required_argument, NULL, 'w'},  {"seconds", required_argument, NULL, 's'},     {"every", required_argument, NULL, 'e'},
        {"tasks", required_argument, NULL, 'n'},   {NULL, 0, NULL, 0},
    };
    int option;
    while ((option = getopt_long(count, values, "", names, NULL)) != -1)
        set(options, option, optarg);
    if (optind != count - 1 || !options->port || !options->connections || !options->outstanding || !options->every || !options->tasks) {
        fputs(usage, stderr);
        exit(2);
    }
    options->mode = values[optind];
}

int main(int count, char **values) {
    struct options options = {.host = "127.0.0.1", .path = "/ws", .connections = 50, .outstanding = 1, .tasks = 1000, .text = 100,
                              .every = 20, .warmup = 0.5, .seconds = 2};
    read_options(&options, count, values);
    if (!strcmp(options.mode, "tasks") || !strcmp(options.mode, "echo"))
        return run_closed(&options, !strcmp(options.mode, "echo"));
    if (!strcmp(options.mode, "ping") || !strcmp(options.mode, "trickle")) {
        options.connections = 1;
        return run_paced(&options, !strcmp(options.mode, "ping"));
    }
    if (!strcmp(options.mode, "flood"))
        return run_flood(&options);
    if (!strcmp(options.mode, "idle"))
        return run_idle(&options);
    fputs(usage, stderr);
    return 2;
}
