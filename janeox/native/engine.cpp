// One step of GPT-NeoX on a CPU in one call: embeddings, layers, head, by a team of threads.
#include "engine.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <numeric>

#include "team.h"

using namespace janeox;

const Kernels* janeox::find_kernels(const char* name) {
#if defined(__x86_64__) && defined(__GNUC__)
    const Kernels* known[] = {
#ifdef JANEOX_AVX512_BF16
        &avx512bf16_kernels,
#endif
        &avx512_kernels, &avx2_kernels};
#elif defined(__aarch64__) && defined(__GNUC__)
    const Kernels* known[] = {&neon_kernels};
#else
    const Kernels* known[] = {nullptr};
#endif
    for (const Kernels* kernels : known)
        if (kernels && kernels->supported() && (!*name || !std::strcmp(name, kernels->name))) return kernels;
    return nullptr;
}

namespace {

template <class T>
T* grown(std::vector<T>& buffer, size_t size) {
    if (buffer.size() < size) buffer.resize(size);
    return buffer.data();
}

}  // namespace

struct Rows {  // mirrored in Python: R rows of a step, their tokens end to end
    const int32_t *ids, *slots, *starts, *counts;
    int32_t num_rows, num_tokens;
    const int32_t* wanted;  // places of the tokens whose logits are asked for, ascending
    int32_t num_wanted;
};

class Engine {
public:
    Engine(int threads, const Kernels* kernels) : kernels_(kernels), team_(threads), scratch_(threads) {}

    const char* name() const { return kernels_->name; }

    void forward(const Model& model, const Cache& cache, const Rows& rows, float* logits) {
        std::lock_guard<std::mutex> lock(mutex_);
        const size_t tokens = rows.num_tokens, C = model.hidden;
        const Matrix& up = model.layers[0].dense_h_to_4h;
        const size_t widest = std::max<size_t>(model.layers[0].query_key_value.panels, up.panels) * LANES;
        x_ = grown(x, tokens * C);
        wide_ = grown(wide, tokens * widest);
        out_ = grown(out, tokens * C);
        const size_t columns = tokens * (widest + 64);  // the padding of a last group included
        input_ = {grown(values, columns), grown(pairs, columns / 2), grown(bytes, columns), grown(scales, columns / 16), grown(sums, columns / 16),
                  rows.num_tokens};
        head_input_ = input_;
        head_input_.tokens = rows.num_wanted;
        const size_t positions = static_cast<size_t>(cache.blocks) * LANES;
        for (auto& one : scratch_) grown(one, std::max(C, head_scratch(positions, model.head_dim, kernels_->tile)));
        team_.run([&](int thread) { step(model, cache, rows, logits, scratch_[thread].data()); });
    }

    // Seconds in which all threads together read the memory once, in portions.
    double read(const uint8_t* memory, size_t bytes) {
        constexpr size_t PORTION = 1 << 20;
        return timed([&](int thread) {
            team_.each(static_cast<int>(bytes / PORTION), [&](int i) { scratch_[thread][0] = kernels_->read(memory + i * PORTION, PORTION); });
        });
    }

    // Operations a second of all threads together in 32, 16, 8 or 4 bits.
    double peak(int bits) {
        std::vector<double> done(team_.size());
        const double seconds = timed([&](int thread) { scratch_[thread][0] = kernels_->peak(bits, 10000000, &done[thread]); });
        return std::accumulate(done.begin(), done.end(), 0.0) / seconds;
    }

private:
    template <class Body>
    double timed(const Body& body) {
        std::lock_guard<std::mutex> lock(mutex_);
        for (auto& one : scratch_) grown(one, 1);
        const auto start = std::chrono::steady_clock::now();
        team_.run(body);
        return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }

    // Run by every thread at once; each phase ends with a meeting of all.
    void step(const Model& model, const Cache& cache, const Rows& rows, float* logits, float* scratch) {
        const Kernels& k = *kernels_;
        const int tokens = rows.num_tokens;
        const size_t C = model.hidden;
        team_.each(tokens, [&](int t) { k.embed(model, rows.ids[t], x_ + t * C); });
        for (int l = 0; l < model.num_layers; l++) {
            const Layer& layer = model.layers[l];
            const size_t qkv = layer.query_key_value.panels * LANES, inner = layer.dense_h_to_4h.panels * LANES;
            operand(layer.query_key_value, input_, [&](int t) { return normed(model, layer.input, x_ + t * C, scratch); }, C);
            multiply(layer.query_key_value, input_, wide_, qkv, false);
            team_.each(rows.num_rows * model.heads, [&](int i) {
                k.attend(head(model, cache, rows, l, i / model.heads, i % model.heads, qkv, scratch));
            });
            // Of the last layer's output only the tokens whose logits are asked for are needed; the others end here.
            const bool last = l + 1 == model.num_layers;
            if (last && !rows.num_wanted) return;
            if (last) team_.each(1, [&](int) { keep_wanted(rows, C); });
            Input& input = last ? head_input_ : input_;
            operand(layer.dense, input, [&](int t) { return out_ + t * C; }, C);
            if (model.parallel_residual) {
                // The MLP reads x as it was: its output is added to the attention's, then both to x.
                multiply(layer.dense, input, out_, C, false);
            } else {
                multiply(layer.dense, input, x_, C, true);
            }
            operand(layer.dense_h_to_4h, input,
                    [&](int t) { return normed(model, layer.post_attention, x_ + t * C, scratch); }, C);
            multiply(layer.dense_h_to_4h, input, wide_, inner, false);
            operand(layer.dense_4h_to_h, input,
                    [&](int t) {
                        k.gelu(wide_ + t * inner, static_cast<int>(inner), model.tanh_gelu);
                        return wide_ + t * inner;
                    },
                    inner);
            multiply(layer.dense_4h_to_h, input, x_, C, true);
            if (model.parallel_residual) {
                team_.each(input.tokens, [&](int t) {
                    for (size_t i = t * C; i < (t + 1) * C; i++) x_[i] += out_[i];
                });
            }
        }
        operand(model.head, head_input_, [&](int t) { return normed(model, model.final_norm, x_ + t * C, scratch); }, C);
        multiply(model.head, head_input_, logits, model.head.panels * LANES, false);
    }

    // Moves what the wanted tokens have in x and out to the front; `wanted` ascends, so that none is overwritten unread.
    void keep_wanted(const Rows& rows, size_t size) {
        for (int t = 0; t < rows.num_wanted; t++) {
            if (rows.wanted[t] == t) continue;
            std::copy_n(x_ + rows.wanted[t] * size, size, x_ + t * size);
            std::copy_n(out_ + rows.wanted[t] * size, size, out_ + t * size);
        }
    }

    const float* normed(const Model& model, const Norm& norm, const float* x, float* scratch) {
        kernels_->normalize(x, norm, model.epsilon, model.hidden, scratch);
        return scratch;
    }

    template <class Source>
    void operand(const Matrix& matrix, Input& input, const Source& source, size_t size) {
        team_.each(input.tokens, [&](int t) { kernels_->prepare(matrix, source(t), static_cast<int>(size), t, input); });
    }

    void multiply(const Matrix& matrix, const Input& input, float* to, size_t stride, bool add) {
        // Enough portions for all threads; where tile after tile reads them, they stay in the second cache. Two panels are
        // multiplied side by side whatever their size.
        int portion = (matrix.panels + team_.size() * 8 - 1) / (team_.size() * 8);
        if (input.tokens > kernels_->tile) {
            const int64_t panel = int64_t(matrix.columns) * LANES * matrix.bits / 8;
            portion = std::min(portion, std::max(2, static_cast<int>(400000 / panel)));
        }
        if (portion > 4) portion &= ~3;
        team_.each((matrix.panels + portion - 1) / portion, [&](int i) {
            kernels_->multiply(matrix, input, i * portion, std::min(matrix.panels, (i + 1) * portion), to, stride, add);
        });
    }

    Head head(const Model& model, const Cache& cache, const Rows& rows, int layer, int row, int head, size_t stride,
              float* scratch) {
        int first = 0;
        for (int r = 0; r < row; r++) first += rows.counts[r];
        const size_t D = model.head_dim, place = (static_cast<size_t>(rows.slots[row]) * model.num_layers + layer) * model.heads + head;
        const size_t positions = static_cast<size_t>(cache.blocks) * LANES, offset = place * positions * D * (cache.bits / 8);
        Head h{};
        h.qkv = wide_ + first * stride + head * 3 * D;
        h.out = out_ + first * static_cast<size_t>(model.hidden) + head * D;
        h.qkv_stride = stride;
        h.out_stride = model.hidden;
        h.keys = static_cast<char*>(cache.keys) + offset;
        h.values = static_cast<char*>(cache.values) + offset;
        if (cache.key_scales) {
            h.key_scales = cache.key_scales + place * positions;
            h.value_scales = cache.value_scales + place * positions;
        }
        h.cos = model.cos;
        h.sin = model.sin;
        h.start = rows.starts[row];
        h.count = rows.counts[row];
        h.head_dim = model.head_dim;
        h.rotary_dim = model.rotary_dim;
        h.bits = cache.bits;
        h.scratch = scratch;
        return h;
    }

    const Kernels* kernels_;
    Team team_;
    std::mutex mutex_;
    std::vector<std::vector<float>> scratch_;
    std::vector<float> x, wide, out, values, scales;
    std::vector<Pair> pairs;
    std::vector<int8_t> bytes;
    std::vector<int32_t> sums;
    float *x_, *wide_, *out_;
    Input input_{}, head_input_{};
};

extern "C" {

// An engine of `threads` threads with the kernels of that name, or the best of this machine for ""; null where there are none.
Engine* janeox_engine_new(int threads, const char* name) {
    try {
        const Kernels* kernels = find_kernels(name);
        return kernels ? new Engine(std::max(1, threads), kernels) : nullptr;
    } catch (const std::exception&) {
        return nullptr;
    }
}

void janeox_engine_free(Engine* engine) { delete engine; }

const char* janeox_engine_name(const Engine* engine) { return engine->name(); }

double janeox_read(Engine* engine, const uint8_t* memory, int64_t bytes) { return engine->read(memory, static_cast<size_t>(bytes)); }

double janeox_peak(Engine* engine, int bits) { return engine->peak(bits); }

// Logits (wanted, rows of the head) of one step. False where memory ran out.
bool janeox_forward(Engine* engine, const Model* model, const Cache* cache, const Rows* rows, float* logits) {
    try {
        engine->forward(*model, *cache, *rows, logits);
        return true;
    } catch (const std::exception&) {
        return false;
    }
}
}
