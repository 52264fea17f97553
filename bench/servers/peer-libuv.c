/* An echo server on libuv, as its guide writes it ("Buffers and Streams"): a
 * buffer of the size libuv suggests per read, written and then freed.
 *
 * One loop. The contract of a server stands in common/src/lib.rs. */

#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>
#include <uv.h>

enum { BACKLOG = 4096 };

typedef struct {
    uv_write_t request;
    uv_buf_t buf;
} write_t;

static uv_loop_t *loop;
static unsigned long closed, exit_after;
static volatile sig_atomic_t accepted;

static void usage(void) {
    fprintf(stderr, "usage: --addr IP:PORT [--workers 1] [--protocol echo]\n");
    exit(2);
}

static void fail(const char *what, int answer) {
    fprintf(stderr, "%s: %s\n", what, uv_strerror(answer));
    exit(1);
}

/* snprintf of an integer is safe enough in a handler here: one thread, no
 * locale, and nothing comes after it. */
static void on_term(int signal) {
    char line[64];
    (void)signal;
    int len = snprintf(line, sizeof line, "accepted %ld refused 0\n", (long)accepted);
    if (write(1, line, (size_t)len) < 0)
        _exit(1);
    _exit(0);
}

static void on_close(uv_handle_t *handle) {
    free(handle);
    if (++closed == exit_after)
        exit(0);
}

static void end(uv_stream_t *client) {
    if (!uv_is_closing((uv_handle_t *)client))
        uv_close((uv_handle_t *)client, on_close);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buf) {
    (void)handle;
    buf->base = malloc(suggested);
    buf->len = buf->base ? suggested : 0;
}

static void on_written(uv_write_t *request, int status) {
    write_t *write = (write_t *)request;
    if (status < 0)
        end(request->handle);
    free(write->buf.base);
    free(write);
}

static void on_read(uv_stream_t *client, ssize_t n, const uv_buf_t *buf) {
    if (n > 0) {
        write_t *write = malloc(sizeof *write);
        if (write) {
            write->buf = uv_buf_init(buf->base, (unsigned)n);
            if (uv_write(&write->request, client, &write->buf, 1, on_written) == 0)
                return; /* on_written frees */
            free(write);
        }
        end(client);
    } else if (n < 0) {
        end(client);
    }
    free(buf->base);
}

static void on_connection(uv_stream_t *server, int status) {
    if (status < 0)
        return;
    uv_tcp_t *client = malloc(sizeof *client);
    if (!client)
        return;
    uv_tcp_init(loop, client);
    if (uv_accept(server, (uv_stream_t *)client) != 0) {
        end((uv_stream_t *)client);
        return;
    }
    accepted++;
    uv_tcp_nodelay(client, 1);
    uv_read_start((uv_stream_t *)client, on_alloc, on_read);
}

int main(int argc, char **argv) {
    char ip[64] = "127.0.0.1";
    int port = 0, answer;
    for (int i = 1; i < argc; i += 2) {
        const char *value = i + 1 < argc ? argv[i + 1] : "";
        const char *colon = strrchr(value, ':');
        if (!strcmp(argv[i], "--addr") && colon && colon - value < (long)sizeof ip) {
            memcpy(ip, value, colon - value);
            ip[colon - value] = 0;
            port = atoi(colon + 1);
        } else if (strcmp(argv[i], "--workers") || strcmp(value, "1")) {
            if (strcmp(argv[i], "--protocol") || strcmp(value, "echo"))
                usage();
        }
    }
    if (getenv("BENCH_EXIT_AFTER"))
        exit_after = strtoul(getenv("BENCH_EXIT_AFTER"), NULL, 10);
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }

    loop = uv_default_loop();
    uv_tcp_t server;
    struct sockaddr_in addr;
    int len = sizeof addr;
    uv_tcp_init(loop, &server);
    if ((answer = uv_ip4_addr(ip, port, &addr)) != 0)
        usage();
    /* uv_tcp_bind sets SO_REUSEADDR. */
    if ((answer = uv_tcp_bind(&server, (const struct sockaddr *)&addr, 0)) != 0 ||
        (answer = uv_listen((uv_stream_t *)&server, BACKLOG, on_connection)) != 0 ||
        (answer = uv_tcp_getsockname(&server, (struct sockaddr *)&addr, &len)) != 0)
        fail("cannot listen", answer);
    signal(SIGTERM, on_term);
    printf("listening on %s:%d\n", ip, ntohs(addr.sin_port));
    fflush(stdout);
    return uv_run(loop, UV_RUN_DEFAULT);
}
