// Draws the panels of panels.json with Grafana's own code: transformations, field overrides, units, colours, tables,
// large numbers and lines. State timelines are not in its library: they are drawn here, in the colours it gives.
import React from 'react';
import { createRoot } from 'react-dom/client';
import { lastValueFrom } from 'rxjs';
import 'uplot/dist/uPlot.min.css';
import asked from './panels.json';

// Not imported: the bundler would then take modules whose own imports of older ones it reads as node does.
const {
  FieldConfigOptionsRegistry, ThemeContext, applyFieldOverrides, createTheme, dateTime, getFieldDisplayName,
  getFieldDisplayValues, standardTransformers, standardTransformersRegistry, toDataFrame, transformDataFrame,
} = require('@grafana/data');
const { BigValue, GlobalStyles, PanelChrome, Table, TimeSeries } = require('@grafana/ui');

const UNIT_PX = { x: 62, y: 34 };
const theme = createTheme({ colors: { mode: 'dark' } });
standardTransformersRegistry.setInit(() =>
  [...new Map(Object.values(standardTransformers).map((found: any) => [found.id, found])).values()]
    .map((found: any) => ({ id: found.id, name: found.name, transformation: async () => found })) as any);
const option = (name: string, isCustom: boolean) => ({
  id: isCustom ? `custom.${name}` : name, path: name, isCustom, name, editor: () => null, override: () => null,
  process: (value: any) => value, shouldApply: () => true, getItemsCount: () => 0,
});
const standard = ['unit', 'decimals', 'displayName', 'thresholds', 'links', 'min', 'max', 'noValue', 'color', 'mappings'];
const custom = ['cellOptions', 'filterable', 'align', 'inspect', 'minWidth', 'fillOpacity', 'lineWidth', 'showPoints', 'spanNulls'];
const registry = new FieldConfigOptionsRegistry(() =>
  [...standard.map((name) => option(name, false)), ...custom.map((name) => option(name, true))] as any);
const same = (text: string) => text;
const told: any[] = [];
(window as any).told = told;

window.addEventListener('error', (event) => { document.title = `failed: ${event.error?.stack ?? event.message}`; });

async function shownFrames({ panel, frames }: any) {
  const made = frames.map((frame: any) => toDataFrame(frame));
  const changed = await lastValueFrom(transformDataFrame(panel.transformations ?? [], made));
  return applyFieldOverrides({
    data: changed, fieldConfig: panel.fieldConfig, replaceVariables: same, theme, fieldConfigRegistry: registry as any,
    timeZone: 'utc',
  });
}

function body(panel: any, data: any[], width: number, height: number) {
  if (!data.some((frame) => frame.length)) return <div>{panel.fieldConfig.defaults.noValue}</div>;
  if (panel.type === 'stat') {
    const values = getFieldDisplayValues({
      data, fieldConfig: panel.fieldConfig, reduceOptions: panel.options.reduceOptions, replaceVariables: same, theme,
    });
    return <div style={{ display: 'flex' }}>{values.map((value, at) =>  // side by side: what Grafana calls vertical
      <BigValue key={at} value={value.display} width={width / values.length} height={height} theme={theme}
        colorMode={panel.options.colorMode} graphMode={panel.options.graphMode} textMode={panel.options.textMode}
        justifyMode={'auto' as any} />)}</div>;
  }
  if (panel.type === 'table' || panel.type === 'geomap') {  // of a map, what a click on its marks tells
    return <Table data={data[0]} width={width} height={height} ariaLabel={panel.title}
      initialSortBy={panel.options.sortBy ?? []} cellHeight={panel.options.cellHeight} />;
  }
  if (panel.type === 'timeseries') {
    const times = data[0].fields[0].values;
    const range = { from: dateTime(times[0]), to: dateTime(times[times.length - 1]), raw: {} } as any;
    data.forEach((frame, at) => frame.fields.forEach((field: any) => { field.state = { ...field.state, seriesIndex: at }; }));
    return <TimeSeries frames={data} timeRange={range} timeZone="utc" width={width} height={height}
      legend={{ ...panel.options.legend, showLegend: false, calcs: [] }}>{() => null as any}</TimeSeries>;
  }
  return data.map((frame, at) => {
    const field = frame.fields[1];
    return <div key={at} style={{ display: 'flex', height: height / data.length - 6, marginBottom: 6 }}>
      <div style={{ width: 170 }}>{getFieldDisplayName(field, frame, data)}</div>
      {Array.from(field.values).map((value: any, bar) =>
        <div key={bar} style={{ flex: 1, background: value === null ? 'none' : field.display(value).color }} />)}
    </div>;
  });
}

function seen({ panel }: any, data: any[]) {
  const fields = data.flatMap((frame) => frame.fields.map((field: any) => ({
    name: getFieldDisplayName(field, frame, data),
    first: field.display && frame.length ? ((shown) => `${shown.prefix ?? ''}${shown.text}${shown.suffix ?? ''} ${shown.color ?? ''}`)
      (field.display(field.values[field.values.length - 1])) : '',
  })));
  told.push({ title: panel.title, fields });
}

async function draw() {
  const panels = [];
  for (const entry of asked as any[]) {
    const data = await shownFrames(entry);
    seen(entry, data);
    panels.push({ ...entry, data });
  }
  const bottom = Math.max(...panels.map(({ at }: any) => at.y + at.h)) * UNIT_PX.y;
  createRoot(document.getElementById('root')!).render(
    <ThemeContext.Provider value={theme}>
      <GlobalStyles />
      <div style={{ position: 'relative', height: bottom, color: '#ccccdc', font: '13px sans-serif' }}>
        {panels.map(({ panel, at, data }: any) =>
          <div key={panel.id} style={{ position: 'absolute', left: at.x * UNIT_PX.x, top: at.y * UNIT_PX.y }}>
            <PanelChrome title={panel.title} description={panel.description} width={at.w * UNIT_PX.x - 8}
              height={at.h * UNIT_PX.y - 8}>{(w, h) => <>{body(panel, data, w, h)}</>}</PanelChrome>
          </div>)}
      </div>
    </ThemeContext.Provider>);
  const facts = document.createElement('script');
  facts.type = 'application/json';
  facts.id = 'told';
  facts.textContent = JSON.stringify(told);
  document.body.append(facts);
}
draw().catch((error) => { document.title = `failed: ${error.stack}`; });
