"""What every table-driven vector (VALU) opcode of gfx942 means: one line an opcode.

    name  destination  sources  expression

a, b, c: sources in order; d: the old destination. Types: u uint32, i int32, f float32, U uint64,
I int64, D float64, h the low half as uint16 (held in uint32), n the low half as int16 (held in
int32), e the low half as float16, m a mask with one bit a lane. A 16-bit result clears the other
half unless the opcode is named in KEEPS_HALF. Comparisons are generated in isa.py; packed (v_pk_*)
16-bit forms apply these lines to both halves. Functions are those of bits.py and floats.py.
Source of the meanings: AMD's published CDNA3 instruction set document.
"""

_KEEPS_HALF_NAMES = (
    "v_fma_f16 v_mad_f16 v_mad_u16 v_mad_i16 v_div_fixup_f16 v_min3_f16 v_max3_f16 v_med3_f16 "
    "v_min3_u16 v_max3_u16 v_med3_u16 v_min3_i16 v_max3_i16 v_med3_i16 v_add_i16 v_sub_i16"
)
KEEPS_HALF = frozenset(_KEEPS_HALF_NAMES.split())

INTEGER = """
v_mov_b32 u u a
v_mov_b64 U U a
v_not_b32 u u ~a
v_bfrev_b32 u u reverse_bits(a)
v_add_u32 u uu a + b
v_sub_u32 u uu a - b
v_subrev_u32 u uu b - a
v_add_i32 i ii a + b
v_sub_i32 i ii a - b
v_mul_u32_u24 u uu (a & 0xFFFFFF) * (b & 0xFFFFFF)
v_mul_i32_i24 i ii ((a << 8) >> 8) * ((b << 8) >> 8)
v_mul_hi_u32_u24 u uu high_product_u(a & 0xFFFFFF, b & 0xFFFFFF)
v_mul_hi_i32_i24 i ii high_product_i((a << 8) >> 8, (b << 8) >> 8)
v_mad_u32_u24 u uuu (a & 0xFFFFFF) * (b & 0xFFFFFF) + c
v_mad_i32_i24 i iii ((a << 8) >> 8) * ((b << 8) >> 8) + c
v_mul_lo_u32 u uu a * b
v_mul_hi_u32 u uu high_product_u(a, b)
v_mul_hi_i32 i ii high_product_i(a, b)
v_and_b32 u uu a & b
v_or_b32 u uu a | b
v_xor_b32 u uu a ^ b
v_xnor_b32 u uu ~(a ^ b)
v_lshlrev_b32 u uu b << (a & 31)
v_lshrrev_b32 u uu b >> (a & 31)
v_ashrrev_i32 i ii b >> (a & 31)
v_lshlrev_b64 U uU b << widen(a & 63)
v_lshrrev_b64 U uU b >> widen(a & 63)
v_ashrrev_i64 I uI b >> widen(a & 63).view(i64)
v_lshl_add_u32 u uuu (a << (b & 31)) + c
v_lshl_or_b32 u uuu (a << (b & 31)) | c
v_add_lshl_u32 u uuu (a + b) << (c & 31)
v_add3_u32 u uuu a + b + c
v_or3_b32 u uuu a | b | c
v_and_or_b32 u uuu (a & b) | c
v_xad_u32 u uuu (a ^ b) + c
v_lshl_add_u64 U UuU (a << widen(b & 7)) + c
v_bfe_u32 u uuu (a >> (b & 31)) & low_mask(c)
v_bfe_i32 i iuu signed_field(a, b, c)
v_bfi_b32 u uuu (a & b) | (~a & c)
v_bfm_b32 u uu ((ONE << (a & 31)) - ONE) << (b & 31)
v_alignbit_b32 u uuu align_bits(a, b, c)
v_alignbyte_b32 u uuu align_bits(a, b, (c & 3) * 8)
v_perm_b32 u uuu permute_bytes(a, b, c)
v_min_u32 u uu minimum(a, b)
v_max_u32 u uu maximum(a, b)
v_min_i32 i ii minimum(a, b)
v_max_i32 i ii maximum(a, b)
v_min3_u32 u uuu minimum(minimum(a, b), c)
v_max3_u32 u uuu maximum(maximum(a, b), c)
v_med3_u32 u uuu maximum(minimum(maximum(a, b), c), minimum(a, b))
v_min3_i32 i iii minimum(minimum(a, b), c)
v_max3_i32 i iii maximum(maximum(a, b), c)
v_med3_i32 i iii maximum(minimum(maximum(a, b), c), minimum(a, b))
v_bcnt_u32_b32 u uu popcount(a) + b
v_ffbh_u32 u u leading_zeros(a)
v_ffbh_i32 u i leading_signs(a)
v_ffbl_b32 u u first_one(a)
v_sad_u32 u uuu maximum(a, b) - minimum(a, b) + c
v_sad_u16 u uuu differences(a, b, u16).sum(-1, dtype=u32) + c
v_sad_u8 u uuu differences(a, b, u8).sum(-1, dtype=u32) + c
v_sad_hi_u8 u uuu (differences(a, b, u8).sum(-1, dtype=u32) << 16) + c
v_msad_u8 u uuu masked_differences(a, b) + c
v_lerp_u8 u uuu middles_u8(a, b, c)
v_mbcnt_lo_u32_b32 u uu b + popcount(a & LANES_BELOW_LOW)
v_mbcnt_hi_u32_b32 u uu b + popcount(a & LANES_BELOW_HIGH)
v_accvgpr_read_b32 u u a
v_accvgpr_write_b32 u u a
v_accvgpr_mov_b32 u u a
v_cndmask_b32 u uum where(c, b, a)
v_lshlrev_b16 h hh b << (a & 15)
v_lshrrev_b16 h hh b >> (a & 15)
v_ashrrev_i16 n nn b >> (a & 15)
v_add_u16 h hh a + b
v_sub_u16 h hh a - b
v_subrev_u16 h hh b - a
v_mul_lo_u16 h hh a * b
v_add_i16 n nn a + b
v_sub_i16 n nn a - b
v_mad_u16 h hhh a * b + c
v_mad_i16 n nnn a * b + c
v_mad_legacy_u16 h hhh a * b + c
v_mad_legacy_i16 n nnn a * b + c
v_mad_u32_u16 u hhu a * b + c
v_mad_i32_i16 i nni a * b + c
v_max_u16 h hh maximum(a, b)
v_min_u16 h hh minimum(a, b)
v_max_i16 n nn maximum(a, b)
v_min_i16 n nn minimum(a, b)
v_max3_u16 h hhh maximum(maximum(a, b), c)
v_min3_u16 h hhh minimum(minimum(a, b), c)
v_med3_u16 h hhh maximum(minimum(maximum(a, b), c), minimum(a, b))
v_max3_i16 n nnn maximum(maximum(a, b), c)
v_min3_i16 n nnn minimum(minimum(a, b), c)
v_med3_i16 n nnn maximum(minimum(maximum(a, b), c), minimum(a, b))
v_cvt_pk_u16_u32 u uu minimum(a, 0xFFFF) | (minimum(b, 0xFFFF) << 16)
v_cvt_pk_i16_i32 u ii pack_halves(saturate_i16(a), saturate_i16(b))
"""

FLOAT32 = """
v_add_f32 f ff a + b
v_sub_f32 f ff a - b
v_subrev_f32 f ff b - a
v_mul_f32 f ff a * b
v_mul_legacy_f32 f ff where((a == 0) | (b == 0), f32(0), a * b)
v_max_f32 f ff larger(a, b)
v_min_f32 f ff smaller(a, b)
v_max3_f32 f fff larger(larger(a, b), c)
v_min3_f32 f fff smaller(smaller(a, b), c)
v_med3_f32 f fff median(a, b, c)
v_fma_f32 f fff fma(a, b, c)
v_fmac_f32 f ffd fma(a, b, d)
v_fmamk_f32 f fff fma(a, b, c)
v_fmaak_f32 f fff fma(a, b, c)
v_rcp_f32 f f rounded(1.0 / wide(a))
v_rcp_iflag_f32 f f rounded(1.0 / wide(a))
v_rsq_f32 f f rounded(1.0 / sqrt(wide(a)))
v_sqrt_f32 f f sqrt(a)
v_exp_f32 f f flush(rounded(exp2(wide(flush(a)))))
v_log_f32 f f rounded(log2(wide(flush(a))))
v_sin_f32 f f turn_sin(a)
v_cos_f32 f f turn_cos(a)
v_ceil_f32 f f ceil(a)
v_floor_f32 f f floor(a)
v_trunc_f32 f f trunc(a)
v_rndne_f32 f f rint(a)
v_fract_f32 f f fraction(a)
v_ldexp_f32 f fi scale_by_power(a, b)
v_frexp_mant_f32 f f mantissa(a)
v_frexp_exp_i32_f32 i f exponent(a)
v_cvt_f32_u32 f u a.astype(f32)
v_cvt_f32_i32 f i a.astype(f32)
v_cvt_u32_f32 u f to_u32(a)
v_cvt_i32_f32 i f to_i32(a)
v_cvt_rpi_i32_f32 i f to_i32(floor(a + f32(0.5)))
v_cvt_flr_i32_f32 i f to_i32(floor(a))
v_cvt_f32_ubyte0 f u (a & 255).astype(f32)
v_cvt_f32_ubyte1 f u ((a >> 8) & 255).astype(f32)
v_cvt_f32_ubyte2 f u ((a >> 16) & 255).astype(f32)
v_cvt_f32_ubyte3 f u (a >> 24).astype(f32)
v_cvt_f32_fp8 f u FP8_VALUES[a & 255]
v_cvt_f32_bf8 f u BF8_VALUES[a & 255]
v_cvt_f32_f16 f e a.astype(f32)
v_cvt_f16_f32 e f a.astype(f16)
v_cvt_pkrtz_f16_f32 u ff pack_halves(half_towards_zero(a), half_towards_zero(b))
v_div_fmas_f32 f fff divide_fma(a, b, c, carry_lanes())
v_div_fixup_f32 f fff divide_fixup(a, b, c)
v_cmp_class_f32 m fu is_class(a, b)
v_dot2_f32_f16 f uuf dot2_f16(a, b, c)
v_dot2c_f32_f16 f uud dot2_f16(a, b, d.view(f32))
v_dot4_i32_i8 i uui dot_i8(a, b) + c
v_dot4c_i32_i8 i uud dot_i8(a, b) + d.view(i32)
v_dot4_u32_u8 u uuu dot_u8(a, b) + c
v_dot8_i32_i4 i uui dot_i4(a, b) + c
v_dot8c_i32_i4 i uud dot_i4(a, b) + d.view(i32)
v_dot8_u32_u4 u uuu dot_u4(a, b) + c
v_dot2c_i32_i16 i uud dot_i16(a, b) + d.view(i32)
v_dot2_i32_i16 i uui dot_i16(a, b) + c
v_dot2_u32_u16 u uuu dot_u16(a, b) + c
"""

FLOAT16 = """
v_add_f16 e ee a + b
v_sub_f16 e ee a - b
v_subrev_f16 e ee b - a
v_mul_f16 e ee a * b
v_max_f16 e ee larger(a, b)
v_min_f16 e ee smaller(a, b)
v_max3_f16 e eee larger(larger(a, b), c)
v_min3_f16 e eee smaller(smaller(a, b), c)
v_med3_f16 e eee median(a, b, c)
v_fma_f16 e eee fma64(a, b, c).astype(f16)
v_fma_legacy_f16 e eee fma64(a, b, c).astype(f16)
v_fmac_f16 e eed fma64(a, b, half(d)).astype(f16)
v_rcp_f16 e e (1.0 / wide(a)).astype(f16)
v_rsq_f16 e e (1.0 / sqrt(wide(a))).astype(f16)
v_sqrt_f16 e e sqrt(wide(a)).astype(f16)
v_exp_f16 e e exp2(wide(a)).astype(f16)
v_log_f16 e e log2(wide(a)).astype(f16)
v_ceil_f16 e e ceil(a)
v_floor_f16 e e floor(a)
v_trunc_f16 e e trunc(a)
v_rndne_f16 e e rint(a)
v_fract_f16 e e fraction(a)
v_sin_f16 e e turn_sin(a.astype(f32)).astype(f16)
v_cos_f16 e e turn_cos(a.astype(f32)).astype(f16)
v_ldexp_f16 e en scale_by_power(a, b)
v_frexp_mant_f16 e e mantissa(a)
v_frexp_exp_i16_f16 n e exponent(a)
v_div_fixup_f16 e eee divide_fixup(a, b, c)
v_div_fixup_legacy_f16 e eee divide_fixup(a, b, c)
v_cvt_f16_u16 e h a.astype(f16)
v_cvt_f16_i16 e n a.astype(f16)
v_cvt_u16_f16 h e minimum(to_u32(a.astype(f32)), 0xFFFF)
v_cvt_i16_f16 n e saturate_i16(to_i32(a.astype(f32)))
v_pack_b32_f16 u hh a | (b << 16)
v_cmp_class_f16 m eu is_class(a, b)
"""

FLOAT64 = """
v_add_f64 D DD a + b
v_mul_f64 D DD a * b
v_fma_f64 D DDD fma_f64(a, b, c)
v_fmac_f64 D DDd fma_f64(a, b, d)
v_max_f64 D DD larger(a, b)
v_min_f64 D DD smaller(a, b)
v_rcp_f64 D D 1.0 / a
v_rsq_f64 D D 1.0 / sqrt(a)
v_sqrt_f64 D D sqrt(a)
v_ceil_f64 D D ceil(a)
v_floor_f64 D D floor(a)
v_trunc_f64 D D trunc(a)
v_rndne_f64 D D rint(a)
v_fract_f64 D D fraction(a)
v_ldexp_f64 D Di ldexp(a, b)
v_frexp_mant_f64 D D mantissa(a)
v_frexp_exp_i32_f64 i D exponent(a)
v_cvt_f64_f32 D f wide(a)
v_cvt_f64_i32 D i wide(a)
v_cvt_f64_u32 D u wide(a)
v_cvt_f32_f64 f D rounded(a)
v_cvt_i32_f64 i D to_i32(a)
v_cvt_u32_f64 u D to_u32(a)
v_div_fmas_f64 D DDD divide_fma(a, b, c, carry_lanes())
v_div_fixup_f64 D DDD divide_fixup(a, b, c)
v_cmp_class_f64 m Du is_class(a, b)
v_trig_preop_f64 D Du two_over_pi(a, b)
"""
