// What training does over whole tables of logits.
#include <dlfcn.h>

#include <algorithm>
#include <atomic>

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
}
