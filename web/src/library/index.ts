/** Speaker verification in the browser: open a model, embed recordings, verify and identify speakers. */

export { Calibration, QualityFusion, readCalibration, type Quality } from "./calibration.js";
export { createModel, openModel, SpeakerModel, type Attention, type AttentionConfig, type ModelConfig, type ModelParts, type Numbers } from "./model.js";
export { OpenSet, readOpenSet } from "./open-set.js";
export { resample, Resampler } from "./resample.js";
export { identify, verify, type Identification, type Speaker, type Utterance, type Verification } from "./scoring.js";
export { useRuntime } from "./runtime.js";
export { findSpeech, SpeechDetector } from "./speech.js";
