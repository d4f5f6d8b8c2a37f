"""Writes a small autoregressive model in the form of the public code (no adaLN, no time), and its logits by PyTorch.

    python make.py FOLDER
"""
import sys

import torch
from safetensors.torch import save_file
torch.manual_seed(7)
V,H,h,NB,L=13,8,2,2,11
sd={}
def lin(name,o,i,bias=True):
    sd[name+'.weight']=torch.randn(o,i)*0.4
    if bias: sd[name+'.bias']=torch.randn(o)*0.4
sd['vocab_embed.embedding']=torch.randn(V,H)
sd['rotary_emb.inv_freq']=1.0/(10000**(torch.arange(0,H//h,2).float()/(H//h)))
for b in range(NB):
    p=f'blocks.{b}.'
    sd[p+'norm1.weight']=1+0.2*torch.randn(H); lin(p+'attn_qkv',3*H,H,False); lin(p+'attn_out',H,H,False)
    sd[p+'norm2.weight']=1+0.2*torch.randn(H); lin(p+'mlp.0',4*H,H); lin(p+'mlp.2',H,4*H)
sd['output_layer.norm_final.weight']=1+0.2*torch.randn(H); lin('output_layer.linear',V,H)
F=torch.nn.functional
def rot(x,cos,sin):
    a,b=x.chunk(2,-1); return torch.cat([a*cos-b*sin,b*cos+a*sin],-1)
def run(t):
    x=sd['vocab_embed.embedding'][t]; B,S=t.shape
    ang=torch.outer(torch.arange(S).float(),sd['rotary_emb.inv_freq']); cos,sin=ang.cos(),ang.sin()
    ln=lambda x,w: F.layer_norm(x,[H])*w
    for b in range(NB):
        g=lambda n: sd[f'blocks.{b}.{n}']
        q,k,v=(ln(x,g('norm1.weight'))@g('attn_qkv.weight').T).view(B,S,3,h,H//h).permute(2,0,3,1,4)
        a=F.scaled_dot_product_attention(rot(q,cos,sin),rot(k,cos,sin),v,is_causal=True).transpose(1,2).reshape(B,S,H)
        x=x+a@g('attn_out.weight').T
        y=F.gelu(ln(x,g('norm2.weight'))@g('mlp.0.weight').T+g('mlp.0.bias'),approximate='tanh')
        x=x+y@g('mlp.2.weight').T+g('mlp.2.bias')
    return ln(x,sd['output_layer.norm_final.weight'])@sd['output_layer.linear.weight'].T+sd['output_layer.linear.bias']
t=torch.randint(0,V,(2,L))
d=sys.argv[1]
save_file({'backbone.'+k:v.contiguous() for k,v in sd.items()},d+'/reference.safetensors',metadata={'format':'pt'})
save_file({'tokens':t.int(),'logits':run(t)},d+'/io.safetensors')
