/* The epoll loop: reads, cuts server frames into messages, answers pings, writes once to each connection a turn. A lost connection ends the run. */

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "load.h"

#define READ_AT_LEAST 4096
#define EVENTS 256
#define INPUT UINT64_MAX
#define TIMER (UINT64_MAX - 1)

static void watch(struct loop *loop, int operation, int fd, uint32_t events, uint64_t what) {
    struct epoll_event event = {.events = events, .data.u64 = what};
    if (epoll_ctl(loop->epoll, operation, fd, &event) < 0)
        die_errno("epoll_ctl");
}

void loop_open(struct loop *loop, const struct options *options, message_handler handler, void *state) {
    memset(loop, 0, sizeof *loop);
    loop->timer = -1;
    loop->handler = handler;
    loop->state = state;
    loop->count = options->connections;
    loop->connections = allocate(loop->count, sizeof *loop->connections);
    loop->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (loop->epoll < 0)
        die_errno("epoll_create1");
    for (unsigned number = 0; number < loop->count; number++) {
        connection_open(&loop->connections[number], number, options);
        watch(loop, EPOLL_CTL_ADD, loop->connections[number].fd, EPOLLIN, number);
    }
}

void loop_watch_input(struct loop *loop) {
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = INPUT};
    if (epoll_ctl(loop->epoll, EPOLL_CTL_ADD, STDIN_FILENO, &event) == 0)
        return;
    if (errno != EPERM)
        die_errno("watching stdin");
    loop->input_closed = true; /* a file or /dev/null: nobody holds it open */
}

void loop_start_timer(struct loop *loop, uint64_t period_ns) {
    struct timespec period = {.tv_sec = (time_t)(period_ns / SECOND), .tv_nsec = (long)(period_ns % SECOND)};
    struct itimerspec setting = {.it_interval = period, .it_value = period};
    loop->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
    if (loop->timer < 0 || timerfd_settime(loop->timer, 0, &setting, NULL) < 0)
        die_errno("timerfd");
    watch(loop, EPOLL_CTL_ADD, loop->timer, EPOLLIN, TIMER);
}

static void connection_flush(struct loop *loop, struct connection *connection) {
    struct bytes *out = &connection->out;
    ssize_t sent = send(connection->fd, out->data, out->size, MSG_NOSIGNAL);
    if (sent < 0 && errno != EAGAIN)
        die_errno("send");
    if (sent > 0) {
        out->size -= (size_t)sent;
        memmove(out->data, out->data + sent, out->size);
    }
    bool blocked = out->size > 0;
    if (blocked != connection->blocked) {
        connection->blocked = blocked;
        watch(loop, EPOLL_CTL_MOD, connection->fd, EPOLLIN | (blocked ? EPOLLOUT : 0), connection->number);
    }
}

void loop_flush(struct loop *loop) {
    for (unsigned number = 0; number < loop->count; number++)
        if (loop->connections[number].out.size)
            connection_flush(loop, &loop->connections[number]);
}

static void answer_ping(struct connection *connection, const uint8_t *payload, size_t size) {
    uint8_t bytes[6 + 125] = {0x8a, (uint8_t)(0x80 | size), 0, 0, 0, 0};
    memcpy(bytes + 6, payload, size);
    struct frame pong = {.bytes = bytes, .size = 6 + size};
    connection_put(connection, &pong, 0);
}

static void frame_handle(struct loop *loop, struct connection *connection, const uint8_t *head, const uint8_t *payload, size_t size) {
    int opcode = head[0] & 15;
    if (head[0] & 0x70 || !(head[0] & 0x80))
        die("connection %u: a frame starts with %02x, which only whole unextended messages do not need", connection->number, head[0]);
    if (opcode == 1)
        loop->handler(loop->state, connection, (const char *)payload, size);
    else if (opcode == 9 && size <= 125)
        answer_ping(connection, payload, size);
    else if (opcode == 8)
        die("connection %u was closed by the server: code %d, %.*s", connection->number, size >= 2 ? payload[0] << 8 | payload[1] : 0,
            size > 2 ? (int)size - 2 : 0, (const char *)payload + 2);
    else if (opcode != 10)
        die("connection %u: a frame of opcode %d", connection->number, opcode);
}

/* The size of the header and of the payload, both 0 while the header is not whole. */
static size_t header_read(const uint8_t *at, size_t there, size_t *payload) {
    *payload = 0;
    if (there < 2)
        return 0;
    if (at[1] & 0x80)
        die("the server masks its frames");
    size_t extra = at[1] == 126 ? 2 : at[1] == 127 ? 8 : 0;
    if (there < 2 + extra)
        return 0;
    *payload = extra ? 0 : at[1];
    for (size_t i = 0; i < extra; i++)
        *payload = *payload << 8 | at[2 + i];
    return 2 + extra;
}

static void connection_cut(struct loop *loop, struct connection *connection) {
    struct bytes *in = &connection->in;
    size_t at = 0, payload, header;
    while ((header = header_read(in->data + at, in->size - at, &payload)) && in->size - at - header >= payload) {
        frame_handle(loop, connection, in->data + at, in->data + at + header, payload);
        at += header + payload;
    }
    in->size -= at;
    memmove(in->data, in->data + at, in->size);
}

static void connection_read(struct loop *loop, struct connection *connection) {
    struct bytes *in = &connection->in;
    if (in->room - in->size < READ_AT_LEAST) {
        in->room = in->room * 2 + READ_AT_LEAST;
        in->data = realloc(in->data, in->room);
        if (!in->data)
            die("out of memory");
    }
    ssize_t got = recv(connection->fd, in->data + in->size, in->room - in->size, 0);
    if (got < 0 && errno == EAGAIN)
        return;
    if (got <= 0)
        die("connection %u was lost: %s", connection->number, got ? strerror(errno) : "closed without a close frame");
    in->size += (size_t)got;
    connection->received_at = now_ns();
    connection_cut(loop, connection);
}

static void take(struct loop *loop, const struct epoll_event *event) {
    if (event->data.u64 == INPUT) {
        char ignored[256];
        loop->input_closed = read(STDIN_FILENO, ignored, sizeof ignored) <= 0;
        if (loop->input_closed)
            epoll_ctl(loop->epoll, EPOLL_CTL_DEL, STDIN_FILENO, NULL);
    } else if (event->data.u64 == TIMER) {
        uint64_t ticks;
        if (read(loop->timer, &ticks, sizeof ticks) == sizeof ticks)
            loop->ticks += ticks;
    } else {
        struct connection *connection = &loop->connections[event->data.u64];
        if (event->events & ~(uint32_t)EPOLLOUT)
            connection_read(loop, connection);
        if (connection->out.size)
            connection_flush(loop, connection);
    }
}

void loop_turn(struct loop *loop, int timeout_ms) {
    struct epoll_event events[EVENTS];
    int count = epoll_wait(loop->epoll, events, EVENTS, timeout_ms);
    if (count < 0 && errno != EINTR)
        die_errno("epoll_wait");
    for (int at = 0; at < count; at++)
        take(loop, &events[at]);
}

void loop_close(struct loop *loop) {
    for (unsigned number = 0; number < loop->count; number++)
        connection_close(&loop->connections[number]);
    free(loop->connections);
    close(loop->epoll);
    if (loop->timer >= 0)
        close(loop->timer);
}
