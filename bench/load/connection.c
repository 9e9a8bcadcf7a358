/* One WebSocket connection: TCP, the handshake (blocking, one after the other), and the queue of what is to be written. */

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "load.h"

/* The example of RFC 6455: a fixed key has a known answer. */
#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
#define HANDSHAKE_SECONDS 20

static int tcp_connect(const struct options *options) {
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *found;
    int wrong = getaddrinfo(options->host, options->port, &hints, &found);
    if (wrong)
        die("%s port %s: %s", options->host, options->port, gai_strerror(wrong));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        die_errno("socket");
    struct timeval limit = {.tv_sec = HANDSHAKE_SECONDS};
    int one = 1;
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, found->ai_addr, found->ai_addrlen) < 0)
        die_errno("connect");
    freeaddrinfo(found);
    return fd;
}

static void send_request(int fd, const struct options *options) {
    char request[1024];
    int size = snprintf(request, sizeof request,
                        "GET %s HTTP/1.1\r\nHost: %s:%s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                        "Sec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Version: 13\r\n\r\n",
                        options->path, options->host, options->port);
    if (size >= (int)sizeof request)
        die("the path is too long");
    if (send(fd, request, (size_t)size, MSG_NOSIGNAL) != size)
        die_errno("sending the handshake");
}

/* Reads the answer byte-exactly up to its empty line, so that nothing of the first frame is taken with it. */
static void read_answer(int fd) {
    char answer[4096];
    size_t size = 0;
    while (size < 4 || memcmp(answer + size - 4, "\r\n\r\n", 4) != 0) {
        char peeked[sizeof answer];
        ssize_t there = recv(fd, peeked, sizeof answer - 1 - size, MSG_PEEK);
        if (there <= 0)
            die("the handshake was not answered: %s", there ? strerror(errno) : "closed");
        size_t take = 0;
        while (take < (size_t)there && (size < 4 || memcmp(answer + size - 4, "\r\n\r\n", 4) != 0))
            answer[size++] = peeked[take++];
        if (recv(fd, peeked, take, 0) != (ssize_t)take)
            die_errno("reading the handshake");
        if (size >= sizeof answer - 1)
            die("the answer to the handshake is too long");
    }
    answer[size] = 0;
    if (strncmp(answer, "HTTP/1.1 101", 12) != 0 || !strstr(answer, ACCEPT))
        die("the handshake was refused: %.200s", answer);
}

void connection_open(struct connection *connection, unsigned number, const struct options *options) {
    memset(connection, 0, sizeof *connection);
    connection->number = number;
    connection->fd = tcp_connect(options);
    send_request(connection->fd, options);
    read_answer(connection->fd);
    if (fcntl(connection->fd, F_SETFL, O_NONBLOCK) < 0)
        die_errno("fcntl");
}

void connection_put(struct connection *connection, const struct frame *frame, uint64_t number) {
    struct bytes *out = &connection->out;
    if (out->size + frame->size > out->room) {
        out->room = (out->size + frame->size) * 2;
        out->data = realloc(out->data, out->room);
        if (!out->data)
            die("out of memory");
    }
    memcpy(out->data + out->size, frame->bytes, frame->size);
    frame_patch(frame, out->data + out->size, number);
    out->size += frame->size;
}

void connection_close(struct connection *connection) {
    static const uint8_t normal[] = {0x88, 0x82, 0, 0, 0, 0, 0x03, 0xe8}; /* code 1000 under a mask of zeros */
    (void)!send(connection->fd, normal, sizeof normal, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(connection->fd);
    free(connection->in.data);
    free(connection->out.data);
}
