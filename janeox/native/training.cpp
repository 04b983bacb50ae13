// What training does natively: the loss of whole tables of logits, matrix products, and causal attention.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "engine.h"
#include "team.h"

using namespace janeox;

namespace {

// Runs body in `threads` threads. Those are PyTorch's where it has libgomp's or threads with the same interface: after each
// operation they spin for a while, and others would compete with them.
template <class Body>
void run(int threads, const Body& body) {
    using Parallel = void(void (*)(void*), void*, unsigned, unsigned);
    if (auto* parallel = reinterpret_cast<Parallel*>(dlsym(RTLD_DEFAULT, "GOMP_parallel"))) {
        parallel([](void* b) { (*static_cast<const Body*>(b))(); }, const_cast<Body*>(&body), static_cast<unsigned>(threads), 0);
    } else {
        Team(threads).run([&](int) { body(); });
    }
}

// work(i, scratch) for each i below count, with so many aligned bytes.
template <class Work>
void each(int threads, int count, size_t bytes, const Work& work) {
    std::atomic<int> next{0};
    run(threads, [&] {
        thread_local std::vector<char> kept;
        if (kept.size() < bytes + 64) kept.resize(bytes + 64);
        char* scratch = kept.data() + (64 - reinterpret_cast<uintptr_t>(kept.data()) % 64) % 64;
        for (int i; (i = next.fetch_add(1)) < count;) work(i, scratch);
    });
}

constexpr int MOST = 384;  // rows that a task brings into order

}  // namespace

extern "C" {

// Of each row of (rows, columns) logits, float32 or bfloat16, the loss −log p(target) + z_loss · (log Σ exp)²; puts its
// gradient in the place of the logits. A target of −1 has neither. Columns are a multiple of 32. False where there are no
// kernels for this processor.
bool janeox_cross_entropy(void* logits, bool bfloat, int64_t rows, int columns, const int64_t* targets, float z_loss,
                          float* losses, int threads) {
    constexpr int64_t PORTION = 8;
    const Kernels* kernels = find_kernels("");
    if (!kernels) return false;
    const size_t bytes = static_cast<size_t>(columns) * (bfloat ? 2 : 4);
    std::atomic<int64_t> next{0};
    run(std::max(1, threads), [&] {
        for (int64_t first; (first = next.fetch_add(PORTION)) < rows;) {
            for (int64_t i = first; i < std::min(rows, first + PORTION); i++) {
                losses[i] = kernels->cross_entropy(static_cast<char*>(logits) + i * bytes, bfloat, columns,
                                                   static_cast<int>(targets[i]), z_loss);
            }
        }
    });
    return true;
}

// Whether janeox_multiply is faster here than PyTorch's libraries: on AMD's processors with AVX-512.
bool janeox_products_pay(bool bfloat) {
#ifdef JANEOX_AVX512_BF16
    const Kernels* kernels = find_kernels("");
    return __builtin_cpu_is("amd") && (kernels == &avx512bf16_kernels || (kernels == &avx512_kernels && !bfloat));
#else
    return false;
#endif
}

// A product (engine.h) by the kernels of that name, or the best of this machine for "".
bool janeox_multiply(const Product* product, int threads, const char* name) {
    const Kernels* kernels = find_kernels(name);
    if (!kernels) return false;
    const Product& p = *product;
    threads = std::max(1, threads);
    const auto even = [](int size, int parts, int unit) { return ((size + parts - 1) / parts + unit - 1) / unit * unit; };
    int rows, columns = 64;
    if (p.a_along) {  // the division into two tasks a thread or more with the least to bring into order
        double least = INFINITY;
        for (int down = (p.rows + MOST - 1) / MOST; down <= 8 * threads + p.rows / MOST; down++) {
            const int across = (2 * threads + down - 1) / down;
            const double cost = double(p.rows) * across + double(p.columns) * down;
            if (cost < least) least = cost, rows = even(p.rows, down, 6), columns = even(p.columns, across, 64);
        }
    } else {  // 64 columns and so many rows that each thread has eight
        const int across = (p.columns + 63) / 64;
        rows = even(p.rows, (8 * threads + across - 1) / across, 6);
    }
    const int down = (p.rows + rows - 1) / rows, across = (p.columns + columns - 1) / columns;
    const size_t depth = depth_of_block(p);
    const size_t bytes = 4 * (depth * (64 + (p.a_along ? rows : 0)) + size_t(rows) * columns);
    each(threads, across * down, bytes, [&](int i, char* scratch) {
        const int r = i % down * rows, c = i / down * columns;
        kernels->multiply_block(p, r, std::min(p.rows, r + rows), c, std::min(p.columns, c + columns), scratch);
    });
    return true;
}

// Attention of training, or its gradient, by the kernels of that name, or the best of this machine for "".
bool janeox_attention(const Heads* heads, bool backward, int threads, const char* name) {
    const Kernels* kernels = find_kernels(name);
    if (!kernels) return false;
    each(std::max(1, threads), heads->rows * heads->heads, heads_scratch(*heads),
         [&](int i, char* scratch) { kernels->attend_whole(*heads, i, backward, scratch); });
    return true;
}
}
