// An echo server on Asio (without Boost), as its own example writes it
// (async_tcp_echo_server): a session that keeps itself alive by a shared_ptr,
// with one buffer.
//
// With --workers N, N threads run one io_context, and each session has its
// strand. The contract of a server stands in common/src/lib.rs.

#include <sys/resource.h>
#include <unistd.h>

#include <array>
#include <asio.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <string>
#include <thread>
#include <vector>

using asio::ip::tcp;

namespace {

constexpr int backlog = 4096;
constexpr std::size_t buffer = 16 * 1024;

unsigned long exit_after = 0;
std::atomic<unsigned long> accepted{0}, closed{0};

[[noreturn]] void usage() {
    std::fprintf(stderr, "usage: --addr IP:PORT [--workers N] [--protocol echo]\n");
    std::exit(2);
}

// snprintf of an integer is safe enough in a handler here: no locale, and
// nothing comes after it.
void on_term(int) {
    char line[64];
    int len = std::snprintf(line, sizeof line, "accepted %lu refused 0\n", accepted.load());
    _exit(write(1, line, static_cast<std::size_t>(len)) < 0);
}

class session : public std::enable_shared_from_this<session> {
public:
    explicit session(tcp::socket socket) : socket_(std::move(socket)) {}

    ~session() {
        asio::error_code ignored;
        socket_.close(ignored);
        if (closed.fetch_add(1) + 1 == exit_after)
            std::_Exit(0);
    }

    void start() {
        asio::error_code ignored;
        socket_.set_option(tcp::no_delay(true), ignored);
        read();
    }

private:
    void read() {
        socket_.async_read_some(
            asio::buffer(data_),
            [self = shared_from_this()](asio::error_code error, std::size_t n) {
                if (!error)
                    self->write(n);
            });
    }

    void write(std::size_t n) {
        asio::async_write(
            socket_, asio::buffer(data_.data(), n),
            [self = shared_from_this()](asio::error_code error, std::size_t) {
                if (!error)
                    self->read();
            });
    }

    tcp::socket socket_;
    std::array<char, buffer> data_;
};

class server {
public:
    server(asio::io_context &context, const tcp::endpoint &at, bool strands)
        : context_(context), acceptor_(context), rest_(context), strands_(strands) {
        acceptor_.open(at.protocol());
        acceptor_.set_option(tcp::acceptor::reuse_address(true));
        acceptor_.bind(at);
        acceptor_.listen(backlog);
        auto here = acceptor_.local_endpoint();
        std::signal(SIGTERM, on_term);
        std::printf("listening on %s:%d\n", here.address().to_string().c_str(), here.port());
        std::fflush(stdout);
        accept();
    }

private:
    void accept() {
        auto then = [this](asio::error_code error, tcp::socket socket) {
            if (!error) {
                accepted.fetch_add(1);
                std::make_shared<session>(std::move(socket))->start();
                return accept();
            }
            // Out of descriptors, mostly.
            rest_.expires_after(std::chrono::milliseconds(10));
            rest_.async_wait([this](asio::error_code) { accept(); });
        };
        if (strands_)
            acceptor_.async_accept(asio::make_strand(context_), then);
        else
            acceptor_.async_accept(then);
    }

    asio::io_context &context_;
    tcp::acceptor acceptor_;
    asio::steady_timer rest_;
    bool strands_;
};

} // namespace

int main(int argc, char **argv) {
    std::string ip = "127.0.0.1";
    int port = 0, workers = 1;
    for (int i = 1; i < argc; i += 2) {
        const std::string flag = argv[i], value = i + 1 < argc ? argv[i + 1] : "";
        const auto colon = value.rfind(':');
        if (flag == "--addr" && colon != std::string::npos) {
            ip = value.substr(0, colon);
            port = std::atoi(value.c_str() + colon + 1);
        } else if (flag == "--workers" && std::atoi(value.c_str()) > 0) {
            workers = std::atoi(value.c_str());
        } else if (flag != "--protocol" || value != "echo") {
            usage();
        }
    }
    if (const char *text = std::getenv("BENCH_EXIT_AFTER"))
        exit_after = std::strtoul(text, nullptr, 10);
    rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
    try {
        asio::io_context context(workers);
        const auto address = asio::ip::make_address(ip);
        server server(context, {address, static_cast<unsigned short>(port)}, workers > 1);
        std::vector<std::thread> others;
        while (static_cast<int>(others.size()) + 1 < workers)
            others.emplace_back([&context] { context.run(); });
        context.run();
    } catch (const std::exception &e) {
        std::fprintf(stderr, "cannot listen: %s\n", e.what());
        return 1;
    }
}
